"""Reads what was answered lately and before, and compares the two."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from prefect import task

from tasks.advice.costs import find_price, load_prices
from tasks.config.monitoring import MonitorConfig
from tasks.config.settings import Home, find_home
from tasks.errors import EmbedderError, StoreError
from tasks.evaluation.drift import Drift, find_drift, level_of_run
from tasks.evaluation.series import Change, Kind, Numbers, Series, Way, compare_series
from tasks.records import IndexManifest
from tasks.registry.connection import connect
from tasks.registry.traces import Recorded
from tasks.releases import part
from tasks.replay import recorded_of
from tasks.serving import embedder_of

Measure = tuple[str, Kind, Way, Callable[[Recorded], float | None]]

FEWEST_QUESTIONS = 50
"""Texts of questions on either side below which their distributions are not compared."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Answers of the reference window and the newest ones, each in order of time, no answer in both."""

    reference: tuple[Recorded, ...]
    recent: tuple[Recorded, ...]


def read_windows(config: MonitorConfig, home: Home) -> Windows:
    """The first answers since the reference begins, and the newest ones that came after them."""
    reference = tuple(islice(_answers(config, home, newest_first=False), config.reference))
    known = {recorded.trace_id for recorded in reference}
    newest = islice(_answers(config, home, newest_first=True), config.window)
    return Windows(reference, tuple(recorded for recorded in newest if recorded.trace_id not in known)[::-1])


def why_not(config: MonitorConfig, windows: Windows) -> str:
    """Why answers cannot be compared yet, in a sentence; empty where they can."""
    there, wanted = len(windows.reference) + len(windows.recent), config.reference + config.window
    if there == wanted:
        return ""
    return (
        f"Of {config.release} {there:,} answers are traced so far: what people ask and get is compared once there are "
        f"{config.reference:,} for the reference window and {config.window:,} after it."
    )


@task(name="compare questions", task_run_name="compare questions {config.name}")
def compare_questions(config: MonitorConfig, index: str, windows: Windows) -> tuple[Drift | None, str]:
    """Embed the questions of both windows with the embedder of an index version, and compare their distributions.

    Where that cannot be done, the reason in a sentence: too few texts of questions, or the embedder is gone.
    """
    sides = [_questions(side) for side in (windows.reference, windows.recent)]
    if min(map(len, sides)) < FEWEST_QUESTIONS:
        return None, (
            "The traces hold too few texts of questions, so only their lengths are compared and not what they ask: "
            f"`tracing: {{texts: questions}}` in conf/service/{config.release}.yaml keeps them from now on."
        )
    try:
        embedder = embedder_of(IndexManifest.from_json(part(connect(find_home()), index)))
        vectors = [embedder.embed_queries(side) for side in sides]
    except (EmbedderError, StoreError) as error:
        return None, f"What people ask is not compared: {error}."
    return find_drift(vectors[0], vectors[1], level_of_run(config.false_alarms, config.horizon)), ""


def compare_answers(config: MonitorConfig, windows: Windows) -> list[Change]:
    """What was measured of the answers, before and now."""
    series = [
        Series(name, kind, bad, _values(read, windows.reference), _values(read, windows.recent))
        for name, kind, bad, read in (*MEASURED, *([_cost(config)] if config.hosted_model else TOKENS))
    ]
    level = level_of_run(config.false_alarms, config.horizon)
    return compare_series(series, level, config.min_points, config.min_change)


def _answers(config: MonitorConfig, home: Home, newest_first: bool) -> Iterator[Recorded]:
    experiment = config.experiment or f"answers-{config.release}"
    since = config.reference_from.timestamp() if config.reference_from else 0.0
    return recorded_of(experiment, config.release, since, home, newest_first)


def _questions(side: Sequence[Recorded]) -> list[str]:
    return [question for recorded in side if (question := recorded.inputs.get("question"))]


def _values(read: Callable[[Recorded], float | None], side: Sequence[Recorded]) -> Numbers:
    return np.array([value for recorded in side if (value := read(recorded)) is not None], dtype=np.float64)


def _cites(recorded: Recorded) -> float | None:
    return None if _refused(recorded) else float(bool(recorded.outputs.get("cited")))


def _refused(recorded: Recorded) -> float:
    return float(recorded.outputs.get("refused", False))


def _answer_length(recorded: Recorded) -> float | None:
    text = recorded.outputs.get("answer")
    return None if text is None or _refused(recorded) else float(len(text))


def _question_length(recorded: Recorded) -> float | None:
    text = recorded.inputs.get("question")
    return recorded.inputs.get("characters") if text is None else float(len(text))


MEASURED: tuple[Measure, ...] = (
    ("refused", "share", "up", _refused),
    ("cites, of those answered", "share", "down", _cites),
    ("thumbs down, of those rated", "share", "up", lambda one: None if one.thumb is None else float(not one.thumb)),
    ("corrected by a reader", "share", "up", lambda one: float(bool(one.correction))),
    ("probability that the passages answer", "level", "down", lambda one: one.outputs.get("confidence")),
    ("score of the best passage", "level", "down", lambda one: max(one.scores, default=None)),
    ("characters of a question", "level", "either", _question_length),
    ("characters of an answer", "level", "either", _answer_length),
    ("seconds, median", "level", "up", lambda one: one.seconds),
    ("seconds, 95 % quantile", "tail", "up", lambda one: one.seconds),
)
"""By name: how it is compared, in which direction it gets worse, and how it is read; None where there is nothing."""
TOKENS: tuple[Measure, ...] = (
    ("tokens read", "level", "up", lambda one: one.tokens and float(one.tokens[0])),
    ("tokens written", "level", "up", lambda one: one.tokens and float(one.tokens[1])),
)


def _cost(config: MonitorConfig) -> Measure:
    """What an answer costs in place of its tokens; ConfigError where the model has no price."""
    prices = load_prices(config.prices)
    price = find_price(prices.hosted, config.hosted_model, "hosted_model")
    read, written = (float(each) / 1e6 for each in (price.input_per_million, price.output_per_million))
    name = f"cost of an answer, {prices.currency}"
    return name, "level", "up", lambda one: one.tokens and one.tokens[0] * read + one.tokens[1] * written
