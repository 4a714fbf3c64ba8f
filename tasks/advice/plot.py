"""A picture of what each way costs, by the number of requests."""

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from tasks.advice.costs import BreakEven, Way, volumes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAME, CLOSE = 1.005, 1.15
"""Factors within which two marks have the same number beside them, or numbers that would cover each other."""
COLOURS = ("#1f6feb", "#8250df", "#1a7f37", "#bf8700", "#cf222e")


def plot_costs(ways: Sequence[Way], break_evens: Sequence[BreakEven], requests: int, currency: str) -> "Figure":
    """Cost of a month against requests a month, both on logarithmic scales, with break-evens marked.

    Ways that the case rules out are thin and dotted. Save it with ``figure.savefig(path)``.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    across = volumes(ways, Fraction(requests))
    for way, colour in zip(ways, COLOURS, strict=False):
        style = {"linestyle": ":", "linewidth": 1.2} if way.forbidden else {"linewidth": 2}
        label = f"{way.name} (ruled out)" if way.forbidden else way.name
        costs = [float(way.cost(volume)) for volume in across]
        axes.plot([float(volume) for volume in across], costs, color=colour, label=label, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.axvline(requests, color="#57606a", linewidth=1, linestyle="--")
    at_top = axes.get_xaxis_transform()
    axes.annotate(f"this case: {requests:,}", (requests, 1), (4, -10), at_top, textcoords="offset points")
    last = 0.0
    for each in break_evens:
        place = float(each.requests), float(each.cost)
        if place[0] > across[-1] or place[0] < across[0]:
            continue
        axes.plot(*place, "o", color="white", markeredgecolor="black", markersize=6, zorder=5)
        if place[0] < SAME * last:
            continue
        x, y, side = (-6, 9, "right") if place[0] < CLOSE * last else (6, -13, "left")
        axes.annotate(_short(place[0]), place, (x, y), textcoords="offset points", fontsize=8, ha=side)
        last = place[0]
    for axis, sign in ((axes.xaxis, ""), (axes.yaxis, currency)):
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _, sign=sign: f"{sign}{_short(value)}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("requests a month")
    axes.set_ylabel("cost a month")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
