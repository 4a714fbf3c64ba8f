"""What a watch measured, as people read it: table rows and a picture."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.evaluation.drift import Drift
from tasks.evaluation.series import Change

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREY, RED = "#1f6feb", "#9aa5b1", "#cf222e"
WIDEST = 1.5
"""Changes beyond this share are drawn as if they were so great."""


def changes_table(changes: Sequence[Change]) -> list[dict[str, str]]:
    """A row a series, with text in every cell."""
    return [
        {
            "series": f"**{each.name}: worse**" if each.worse else each.name,
            "before": say_value(each, each.before),
            "now": say_value(each, each.now),
            "change": say_change(each),
            "p": f"{each.p_value:.2g}",
            "answers": f"{each.counts[0]:,}, {each.counts[1]:,}",
        }
        for each in changes
    ]


def say_value(change: Change, value: float) -> str:
    return f"{value:.1%}" if change.kind == "share" else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def say_change(change: Change) -> str:
    """Points for shares, and percent for everything else."""
    if change.kind == "share":
        return f"{100 * change.change:+.1f} points"
    return f"{change.change:+.0%}" if math.isfinite(change.change) else "was 0"


def plot_watch(changes: Sequence[Change], drift: Drift | None) -> "Figure":
    """How much every series changed, and how new the questions look. Save it with ``figure.savefig(path)``."""
    from matplotlib.figure import Figure

    height = max(2.6, 0.34 * len(changes) + 1.1)
    figure = Figure(figsize=(10 if drift else 7, height), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=(3, 2)) if drift else [figure.subplots()]
    _plot_changes(panels[0], changes)
    if drift:
        _plot_newness(panels[1], drift)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _plot_changes(axes: "Axes", changes: Sequence[Change]) -> None:
    lengths = np.clip([each.change for each in changes], -WIDEST, WIDEST)
    places = np.arange(len(changes))
    axes.barh(places, lengths, 0.6, color=[RED if each.worse else GREY for each in changes])
    axes.axvline(0, color="black", linewidth=0.8)
    for place, each, length in zip(places, changes, lengths, strict=True):
        text = f"{say_value(each, each.before)} → {say_value(each, each.now)}"
        side = 1 if length >= 0 else -1
        align = "left" if side > 0 else "right"
        axes.annotate(text, (length, place), (4 * side, 0), textcoords="offset points", ha=align, va="center", size=8)
    axes.set_yticks(places, [each.name for each in changes])
    axes.invert_yaxis()
    axes.margins(x=0.35)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    axes.set_xlabel("change since the reference window (shares: in points)")
    axes.set_title("Answers; red is worse", loc="left")


def _plot_newness(axes: "Axes", drift: Drift) -> None:
    both = np.concatenate([drift.reference, drift.recent])
    bins = np.linspace(both.min(), both.max(), 31).tolist()
    for values, colour, label in ((drift.reference, GREY, "reference"), (drift.recent, BLUE, "newest")):
        axes.hist(values, bins, density=True, histtype="stepfilled", alpha=0.6, color=colour, label=label)
    axes.set_yticks([])
    axes.set_xlabel("how new a question looks")
    axes.set_title(f"Questions; separation {drift.separation:.2f}", loc="left")
    axes.legend(frameon=False)
