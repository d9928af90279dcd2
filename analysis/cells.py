"""Numbers as the cells of a table: percent, points, intervals; `–` where a value is missing."""

import math

from analysis.stats import Interval

MISSING = "–"


def percent(fraction: float) -> str:
    """A fraction in percent with two decimals; `–` where it is missing."""
    return MISSING if math.isnan(fraction) else f"{100 * fraction:.2f}".replace("-", "−")


def in_percent(level: float) -> str:
    """The level of an interval: `95 %`."""
    return f"{100 * level:g} %"


def points(fraction: float) -> str:
    """A difference of fractions as signed points with two decimals; `–` where it is missing."""
    if math.isnan(fraction):
        return MISSING
    rounded = round(100 * fraction, 2) + 0.0  # no "−0.00"
    return f"{rounded:+.2f}".replace("-", "−")


def signed(value: float) -> str:
    """A number with its sign and two digits: `+0.56`."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def accuracy_cell(interval: Interval) -> str:
    """A fraction in percent with its interval: `90.12 [89.50, 90.74]`; where all seeds
    have the same, `90.12 (equal)`."""
    if interval.n < 2:
        return percent(interval.mean)
    if interval.low == interval.high:  # as many images at every seed: a band of no width would lie
        return f"{percent(interval.mean)} (equal)"
    return f"{percent(interval.mean)} [{percent(interval.low)}, {percent(interval.high)}]"


def accuracy_text(interval: Interval) -> str:
    """An accuracy in a sentence: `90.12 [89.50, 90.74] %`, or `90.12 % at every seed`."""
    if interval.n > 1 and interval.low == interval.high:
        return f"{percent(interval.mean)} % at every seed"
    return f"{accuracy_cell(interval)} %"


def value_cell(interval: Interval, decimals: int) -> str:
    """A mean of values, not of shares, with its interval: `7.896 [7.012, 8.780]`."""
    if interval.n < 2:
        return number(interval.mean, decimals)
    low, high = number(interval.low, decimals), number(interval.high, decimals)
    return f"{number(interval.mean, decimals)} [{low}, {high}]"


def paired_cell(interval: Interval) -> str:
    """A difference in points with its interval and the number of pairs."""
    if interval.n == 0:
        return MISSING
    bounds = f" [{points(interval.low)}, {points(interval.high)}]" if interval.n > 1 else ""
    return f"{points(interval.mean)}{bounds} n={interval.n}"


def number(value: float, decimals: int | None = None) -> str:
    """A number with one decimal, from 100 on with none; `–` where it is missing."""
    if math.isnan(value):
        return MISSING
    if decimals is None:
        decimals = 0 if abs(value) >= 100 else 1
    return f"{value:,.{decimals}f}".replace("-", "−")
