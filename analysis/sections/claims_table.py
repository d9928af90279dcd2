"""The table of claims, and the notes that explain it."""

from analysis.cells import paired_cell, points
from analysis.claim_words import p_value
from analysis.claims import VISIBLE, Claim, Family
from analysis.difference import DECIDES_FROM
from analysis.ladder_numbers import label_of
from analysis.report_model import TextTable


def claims_table(found: Family, margin: float) -> TextTable:
    """A row a claim."""
    header = ("claim", "points", "p, Holm", "seeds needed", "significant")
    within = f"within ±{100 * margin:g}"
    return TextTable(
        (*header, within),
        tuple(
            (
                f"{label_of(c.rung)} − {label_of(c.reference)}" + " (primary)" * c.primary,
                paired_cell(c.interval),
                p_value(c.adjusted),
                _needed(c),
                ("better" if c.better else "worse") if c.significant else "no",
                "yes" if c.within(margin) else "no",
            )
            for c in found.claims
        ),
    )


def _needed(claim: Claim) -> str:
    """`15 (8–60)`; `–` where it is not known; `> 1000`, where images are what is missing."""
    mid, low, high = claim.needed()
    if mid is None:
        known = claim.interval.n > 1 and claim.shown.difference.deviation > 0
        return "> 1000" if known else "–"
    return f"{mid} ({low or 2}–{high or '…'})"


def claim_notes(found: Family, margin: float) -> tuple[str, ...]:
    """What the columns mean."""
    several = (
        " A claim of a rung is shown with the control that is least favourable to it: better is "
        "better than each control (intersection–union), worse is worse than one of them "
        "(Bonferroni)."
    ) * (len(found.controls) > 1)
    return (
        "Claims of rungs, then steps of the ladder and checks: placebos, a control of the same "
        f"time, the controls themselves.{several} p is of the paired difference over seeds and "
        f"test images, from {DECIDES_FROM} seeds on and where they vary. Seeds needed: for "
        f"a difference of {points(VISIBLE)} points with a power of 80 % at the claim's part of the "
        "level, with a 95 % interval. "
        f"Within: two one-sided tests against ±{100 * margin:g} points at that part of the level.",
    )
