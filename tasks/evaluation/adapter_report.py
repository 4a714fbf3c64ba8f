"""Scores of adapters as people read them: tables, a sentence that tells whether it was worth it, and pictures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.evaluation.gate import Words, say_comparison, say_p_value
from tasks.evaluation.scores import (
    BASE,
    BASE_WITH_EXAMPLES,
    CANDIDATE,
    CHAMPION,
    CONTENDERS,
    LOSSES,
    MACRO_F1,
    PREFERENCE_MARGIN,
    Score,
    compare_scores,
)
from tasks.evaluation.statistics import Estimate, estimate, say_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Contenders = Mapping[str, Mapping[str, Score]]
"""By contender, then by score."""

SHOWN = 10
"""Rows in the table of those answered worst."""
LONGEST = 200
"""Characters of a text in a table."""
COLOURS = {BASE: "#c9d1d9", BASE_WITH_EXAMPLES: "#8b949e", CHAMPION: "#79b8ff", CANDIDATE: "#1f6feb"}


def scores_table(contenders: Contenders) -> list[dict[str, str]]:
    """A row for each score, a column for each contender with value and interval, empty where it was not scored."""
    return [
        {"score": _label(name), "rows": str(len(score.rows))}
        | {who: _value(contenders[who].get(name)) for who in CONTENDERS if who in contenders}
        for name, score in contenders[CANDIDATE].items()
    ]


def differences_table(contenders: Contenders, confidence: float = 0.95) -> list[dict[str, str]]:
    """Candidate minus every other contender, paired by row, for each score that both have."""
    return [
        {
            "score": _label(name),
            "beside": who,
            "difference": f"{found.difference.mean:+.3f}",
            f"{confidence:.0%} interval": say_interval(found.difference, "+"),
            "p": say_p_value(found),
        }
        for name, ours in contenders[CANDIDATE].items()
        for who in CONTENDERS[:-1]
        if name in contenders.get(who, {})
        for found in [compare_scores(ours, contenders[who][name], confidence)]
    ]


def say_worth(contenders: Contenders, compared: str, confidence: float = 0.95) -> str:
    """Whether fine-tuning was worth it: beside the base model that is shown examples, or else the bare one."""
    ours = contenders[CANDIDATE][compared]
    who = next((who for who in (BASE_WITH_EXAMPLES, BASE) if compared in contenders.get(who, {})), None)
    if who is None:
        return "Nothing tells whether fine-tuning was worth it: the base model was not scored."
    found = compare_scores(ours, contenders[who][compared], confidence)
    numbers = say_comparison(found, who, Words("loss", "row", "rows"))
    if not found.proven:
        return f"Fine-tuning was not shown to be worth it: it may do no better than the {who}. {numbers}."
    if found.worse_by > 0:
        return f"Fine-tuning was not worth it: the {who} does better. {numbers}."
    return f"Fine-tuning was worth it: it does better than the {who}. {numbers}."


def slices_table(contenders: Contenders, name: str, slices: Mapping[str, str]) -> list[dict[str, str]]:
    """One score by group of rows: every contender's mean, and the candidate's interval.

    Args:
        contenders: scores.
        name: of the score; for macro F1, which is of all labels together, the share of right labels is shown.
        slices: the group of each row that has one, by row id.
    """
    ours = contenders[CANDIDATE][name]
    rows = []
    for group in sorted(set(slices.values())):
        places = [place for place, row in enumerate(ours.rows) if slices.get(row) == group]
        if not places:
            continue
        means = {who: _part(contenders[who][name], places) for who in CONTENDERS if name in contenders.get(who, {})}
        rows.append(
            {"slice": group, "rows": str(len(places))}
            | {who: f"{part.mean:.3f}" for who, part in means.items()}
            | {"interval of the candidate": say_interval(means[CANDIDATE])}
        )
    return rows


def worst_table(contenders: Contenders, compared: str, texts: Mapping[str, Mapping[str, str]]) -> list[dict[str, str]]:
    """Up to ten rows on which the candidate does worst; among equals those that the champion, or the base, did better.

    Args:
        contenders: scores.
        compared: the score to go by.
        texts: by column, such as ``reference`` or a contender, the text of each row; long ones are cut.
    """
    ours = _by_row(contenders[CANDIDATE][compared])
    other = next((who for who in (CHAMPION, BASE) if compared in contenders.get(who, {})), CANDIDATE)
    theirs = _by_row(contenders[other][compared])
    sign = -1 if compared in LOSSES else 1
    order = sorted(range(len(ours)), key=lambda place: (sign * ours[place], -sign * theirs[place]))
    best = -np.inf if compared in LOSSES or compared == PREFERENCE_MARGIN else 1
    rows = contenders[CANDIDATE][compared].rows
    return [
        {"row": rows[place], _label(compared): f"{ours[place]:.3f}"}
        | ({f"that of the {other}": f"{theirs[place]:.3f}"} if other != CANDIDATE else {})
        | {column: _cut(text.get(rows[place], "")) for column, text in texts.items()}
        for place in order[:SHOWN]
        if ours[place] != best
    ]


def plot_contenders(contenders: Contenders) -> "Figure":
    """The contenders side by side by score, with their intervals; what is in nats has an axis of its own.

    Save it with ``figure.savefig(path)``.
    """
    from matplotlib.figure import Figure

    present = [who for who in CONTENDERS if who in contenders]
    in_nats = [name for name in contenders[CANDIDATE] if name in LOSSES or name == PREFERENCE_MARGIN]
    shares = [name for name in contenders[CANDIDATE] if name not in in_nats]
    panels = ([shares] if shares else []) + [[name] for name in in_nats]
    figure = Figure(figsize=(2 + 1.6 * len(shares) + 2 * len(in_nats), 3.6), layout="constrained")
    widths = [max(1, len(panel)) for panel in panels]
    for axes, panel in zip(figure.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0], panels, strict=True):
        for place, who in enumerate(present):
            _draw_bars(axes, panel, contenders[who], who, place - (len(present) - 1) / 2, 0.8 / len(present))
        axes.set_xticks(range(len(panel)), [name.replace("_", " ") for name in panel])
        axes.spines[["top", "right"]].set_visible(False)
        if panel is shares:
            axes.set_ylim(0, 1.05)
            axes.set_ylabel("share of rows, or score from 0 to 1")
        else:
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set_ylabel("nats" if panel == [PREFERENCE_MARGIN] else "nats a token (lower is better)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(present), frameon=False)
    return figure


def plot_losses(steps: Sequence[int], losses: Sequence[float]) -> "Figure":
    """The loss over the steps of the training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color=COLOURS[CANDIDATE], linewidth=1.5, marker="." if len(steps) < 50 else "")
    axes.set_xlabel("step of the optimizer")
    axes.set_ylabel("loss")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_bars(
    axes: "Axes", names: Sequence[str], scores: Mapping[str, Score], who: str, offset: float, width: float
) -> None:
    found = [(place, scores[name].estimate) for place, name in enumerate(names) if name in scores]
    heights = np.array([value.mean for _, value in found])
    ends = np.array([[value.low for _, value in found], [value.high for _, value in found]])
    across = np.array([place for place, _ in found]) + offset * width
    axes.bar(across, heights, width, yerr=np.abs(ends - heights), capsize=3, color=COLOURS[who], label=who)


def _part(score: Score, places: Sequence[int]) -> Estimate:
    values = _by_row(score)
    weights = [1.0] * len(values) if score.name == MACRO_F1 else score.beside
    return estimate([values[place] for place in places], score.confidence, [weights[place] for place in places])


def _by_row(score: Score) -> list[float]:
    """One number a row; of macro F1, which has none, whether the label is right."""
    if score.name == MACRO_F1:
        return [float(told == true) for told, true in zip(score.values, score.beside, strict=True)]
    return list(score.values)


def _label(name: str) -> str:
    return f"{name} (lower is better)" if name in LOSSES else name


def _value(score: Score | None) -> str:
    return f"{score.estimate.mean:.3f} ({say_interval(score.estimate)})" if score else ""


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
