"""Numbers as the cells of a table: percent, points, intervals; `–` where a value is missing."""

import math

from analysis.stats import Interval, deviation_of

MISSING = "–"


class Measure(str):
    """A cell that was measured: its text on a screen, and its numbers in the unit of its column.
    `accuracy`: the highest of a column is the best; `sd` is over seeds, NaN of a difference; `mark`
    tells a significant one in print."""

    shown: str  # the mean as text
    bounds: str  # the interval as text, "" where there is none
    mean: float
    low: float
    high: float
    n: int
    sd: float = math.nan
    accuracy: bool = False
    mark: str = ""

    @classmethod
    def of(cls, text: str, shown: str, bounds: str, interval: Interval, scale: float) -> "Measure":
        """The cell of an interval whose numbers are shown times `scale`."""
        cell = cls(text)
        cell.shown, cell.bounds, cell.n = shown, bounds, interval.n
        cell.mean, cell.low, cell.high = (scale * one for one in interval[1:])
        return cell


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
    mean, bounds = percent(interval.mean), ""
    if interval.n == 0:
        return mean
    if interval.n > 1:
        bounds = f"[{percent(interval.low)}, {percent(interval.high)}]"
        if interval.low == interval.high:  # as many images at every seed: no band of no width
            bounds = "(equal)"
    cell = Measure.of(f"{mean} {bounds}".strip(), mean, bounds, interval, 100)
    cell.sd, cell.accuracy = 100 * deviation_of(interval), True
    return cell


def accuracy_text(interval: Interval) -> str:
    """An accuracy in a sentence: `90.12 [89.50, 90.74] %`, or `90.12 % at every seed`."""
    if interval.n > 1 and interval.low == interval.high:
        return f"{percent(interval.mean)} % at every seed"
    return f"{accuracy_cell(interval)} %"


def value_cell(interval: Interval, decimals: int) -> str:
    """A mean of values, not of shares, with its interval: `7.896 [7.012, 8.780]`."""
    mean, bounds = number(interval.mean, decimals), ""
    if interval.n == 0:
        return mean
    if interval.n > 1:
        bounds = f"[{number(interval.low, decimals)}, {number(interval.high, decimals)}]"
    cell = Measure.of(f"{mean} {bounds}".strip(), mean, bounds, interval, 1)
    cell.sd = deviation_of(interval)
    return cell


def paired_cell(interval: Interval) -> str:
    """A difference in points with its interval and the number of pairs."""
    if interval.n == 0:
        return MISSING
    bounds = f"[{points(interval.low)}, {points(interval.high)}]" if interval.n > 1 else ""
    text = " ".join(filter(None, (points(interval.mean), bounds, f"n={interval.n}")))
    return Measure.of(text, points(interval.mean), bounds, interval, 100)


def number(value: float, decimals: int | None = None) -> str:
    """A number with one decimal, from 100 on with none; `–` where it is missing."""
    if math.isnan(value):
        return MISSING
    if decimals is None:
        decimals = 0 if abs(value) >= 100 else 1
    return f"{value:,.{decimals}f}".replace("-", "−")
