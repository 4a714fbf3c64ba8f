"""What language models say of answers, as scores, and how far people agree with them.

The score of a judge is named for the judge's version. What two versions say means different things, and is never
compared, because only scores with one name are.
"""

import json
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import numpy as np
from pydantic import ConfigDict, StrictBool, TypeAdapter

from tasks.config.evaluation import AnswersConfig, JudgeConfig
from tasks.errors import ConfigError
from tasks.evaluation.lines import Text, bad_lines, fit, read_lines, read_object
from tasks.evaluation.scores import Score, make_score
from tasks.evaluation.stages import Row, said
from tasks.evaluation.statistics import Estimate, Numbers, estimate
from tasks.records import Judged, Judgement

Judgements = Mapping[str, Judgement]
"""By the id of the question."""
ByJudge = Mapping[str, Judgements]
"""By the judge's name."""
FEWEST = 10
"""Labels that an agreement is measured from."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a person says of an answer."""

    judge: Text
    """Who has to say the same."""
    label: StrictBool
    id: Text = ""
    """Of the question."""
    question: Text = ""
    """Its text, where no id is given."""
    answer: Text | None = None
    """The answer that was read; without it, whatever is answered."""
    line: int = 0

    __pydantic_config__ = ConfigDict(extra="forbid")

    def is_of(self, row: Row) -> bool:
        asked = self.id == row.query.id if self.id else self.question.casefold() == row.query.query.casefold()
        return asked and self.answer in (None, row.whole.text, said(row.whole))


_KEYS = [field.name for field in fields(Label) if field.name != "line"]
_LABEL = TypeAdapter(Label)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far people agree with one version of a judge."""

    judge: str
    """As ``name@version``."""
    counts: Mapping[tuple[bool, bool], int]
    """Answers by what a person and what the judge says."""
    kappa: Estimate | None
    """Cohen's κ; None where the labels cannot tell it."""
    note: str = ""
    """Why they cannot."""


@dataclass(frozen=True, slots=True)
class Panel:
    """What the judges of a suite said."""

    by_release: Mapping[str, ByJudge]
    """By release, as ``name@number``."""
    agreements: Sequence[Agreement] = ()
    labels: int = 0
    """What people said, whether of an answer that has a verdict or not."""


def to_judge(judge: JudgeConfig, rows: Sequence[Row]) -> dict[str, Judged]:
    """By question, the answers that the judge is asked about: a refusal is none.

    Question, answer and passages are as the release's filters left them.
    """
    return {
        row.query.id: Judged(
            row.whole.question, said(row.whole), tuple(passage.text for passage in row.whole.passages), row.expected
        )
        for row in rows
        if not row.whole.refused and (row.expected or not judge.needs_expected)
    }


def describe(judge: JudgeConfig, model: str) -> dict[str, str]:
    """What a judge is, that calls its model so when it answers: all that decides what it says."""
    return {
        "judge": judge.name,
        "scorer": judge.scorer,
        "instructions": judge.instructions,  # of MLflow's scorers they come with its version
        "model": judge.endpoint.model,
        "answering_model": model,
        "mlflow": version("mlflow"),
    }


def version_of(judge: JudgeConfig, model: str) -> str:
    """The judge as ``name@version``."""
    return f"{judge.name}@{sha256(json.dumps(describe(judge, model)).encode()).hexdigest()[:8]}"


def by_version(judge: JudgeConfig, judgements: Judgements) -> dict[str, dict[str, bool]]:
    """By version of the judge, then by question, the verdicts there are; an endpoint may change its model any time."""
    found: dict[str, dict[str, bool]] = {}
    for question, judgement in judgements.items():
        if judgement.passed is not None:
            found.setdefault(version_of(judge, judgement.model), {})[question] = judgement.passed
    return found


def without_verdict(judgements: Judgements) -> dict[str, Judgement]:
    """Those that failed or are no verdict."""
    return {question: judgement for question, judgement in judgements.items() if judgement.passed is None}


def is_reported(judgements: Judgements) -> bool:
    """Whether there are enough verdicts for a score: at least half of the answers have one."""
    return 2 * len(without_verdict(judgements)) <= len(judgements)


def score_judgements(judge: JudgeConfig, judgements: Judgements, confidence: float) -> dict[str, Score]:
    """The share of answers that pass, by version of the judge; none where over half of the answers have no verdict."""
    if not is_reported(judgements):
        return {}
    return {
        name: make_score(name, list(passed), [float(each) for each in passed.values()], confidence=confidence)
        for name, passed in by_version(judge, judgements).items()
    }


def load_labels(path: str, judges: Collection[str]) -> list[Label]:
    """What people say, from a jsonl file; no label without a path.

    Raises:
        ConfigError: the file cannot be read, or has bad lines, or such as are of another judge.
    """
    if not path:
        return []
    labels, problems = read_lines(path, "labels", _parse_label)
    first: dict[Any, int] = {}
    for label in labels:
        line = first.setdefault((label.judge, label.id, label.question.casefold(), label.answer), label.line)
        if label.judge not in judges:
            problems[label.line] = f"there is no judge {label.judge}: there are {', '.join(judges)}"
        elif line != label.line:
            problems[label.line] = f"the same answer as line {line}: keep one of the two"
    if problems:
        raise ConfigError(bad_lines(path, "labels", sorted(problems.items()), len(problems)))
    return labels


def agreements(
    config: AnswersConfig,
    labels: Sequence[Label],
    asked: Mapping[str, Sequence[Row]],
    judged: Mapping[str, ByJudge],
) -> list[Agreement]:
    """How far people agree with each version of each judge; a label counts once, for the first release it fits."""
    found = []
    for judge in config.judges:
        pairs: dict[str, list[tuple[bool, bool]]] = {}
        for label in labels:
            if label.judge == judge.name and (judgement := _of(label, asked, judged)):
                pairs.setdefault(version_of(judge, judgement.model), []).append((label.label, bool(judgement.passed)))
        found += [agree(name, of, config.confidence) for name, of in pairs.items()]
    return found


def agree(judge: str, pairs: Sequence[tuple[bool, bool]], confidence: float) -> Agreement:
    """The agreement of people with a judge, from what a person and what the judge says of each answer.

    Its measure is Cohen's κ (Educational and Psychological Measurement 20, 1960): 1 where they always agree, 0 where as
    often as by chance.
    """
    people, said_by_judge = zip(*pairs, strict=True)
    counts = Counter(pairs)
    if len(pairs) < FEWEST:
        return Agreement(judge, counts, None, f"{len(pairs)} labels are too few: κ takes {FEWEST}")
    if len(set(people)) == 1:
        one = "yes" if people[0] else "no"
        return Agreement(judge, counts, None, f"every label is {one}: κ takes some of both")
    return Agreement(judge, counts, estimate(said_by_judge, confidence, people, _kappa))


def _kappa(judge: Numbers, people: Numbers) -> Numbers:
    """Over the last axis. A resample in which all say the same shows no agreement beyond chance, and counts as 0."""
    from sklearn.exceptions import UndefinedMetricWarning
    from sklearn.metrics import cohen_kappa_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # of such resamples
        return np.vectorize(
            lambda one, two: cohen_kappa_score(one, two, labels=[0, 1], replace_undefined_by=0.0),
            signature="(n),(n)->()",
        )(judge, people)


def _of(label: Label, asked: Mapping[str, Sequence[Row]], judged: Mapping[str, ByJudge]) -> Judgement | None:
    for release, rows in asked.items():
        for row in rows:
            judgement = judged[release][label.judge].get(row.query.id)
            if judgement and judgement.passed is not None and label.is_of(row):
                return judgement
    return None


def _parse_label(line: str, number: int) -> Label:
    raw = read_object(line, _KEYS, "`judge`, `label`, and `id` or `question`")
    label = fit(_LABEL, raw | {"line": number})
    if bool(label.id) == bool(label.question):
        raise ValueError("name the question by `id` or by `question`")
    return label
