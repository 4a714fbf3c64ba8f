"""Scores as people read them: table rows and a picture."""

from typing import TYPE_CHECKING

import numpy as np

from tasks.evaluation.retrieval import METRICS, RetrievalScores
from tasks.evaluation.statistics import estimate, say_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def scores_table(scores: RetrievalScores, champion: RetrievalScores | None = None) -> list[dict[str, str]]:
    """A row for each metric over all queries, then the same for each slice, with text in every cell.

    Columns: group, queries, metric, candidate, interval; beside a champion also champion, difference and,
    over all queries, difference interval.
    """
    groups = {"all": scores.means} | scores.slices
    theirs = {"all": champion.means} | champion.slices if champion else {}
    rows = []
    for group, means in groups.items():
        for metric in METRICS:
            row = {
                "group": group,
                "queries": str(means[metric].count),
                "metric": metric,
                "candidate": f"{means[metric].mean:.3f}",
                "interval": say_interval(means[metric]),
            }
            if group in theirs:
                before = theirs[group][metric].mean
                row |= {"champion": f"{before:.3f}", "difference": f"{means[metric].mean - before:+.3f}"}
            if champion and group == "all" and champion.queries == scores.queries:
                gains = np.subtract(scores.values[metric], champion.values[metric])
                row["difference interval"] = say_interval(estimate(gains, scores.confidence), "+")
            rows.append(row)
    return rows


def plot_scores(scores: RetrievalScores, champion: RetrievalScores | None = None) -> "Figure":
    """Candidate beside champion by metric, with their intervals. Save it with ``figure.savefig(path)``."""
    from matplotlib.figure import Figure

    versions = [("candidate", scores, "#1f6feb")]
    if champion:
        versions.insert(0, ("champion", champion, "#9aa5b1"))
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(versions)
    for place, (label, version, colour) in enumerate(versions):
        means = [version.means[metric] for metric in METRICS]
        heights = np.array([mean.mean for mean in means])
        ends = np.array([[mean.low for mean in means], [mean.high for mean in means]])
        across = np.arange(len(METRICS)) + (place - (len(versions) - 1) / 2) * width
        axes.bar(across, heights, width, yerr=np.abs(ends - heights), capsize=3, color=colour, label=label)
    axes.set_xticks(range(len(METRICS)), METRICS)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("mean over queries")
    axes.set_title(f"Retrieval on {len(scores.queries)} golden queries")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
