"""How far people agree with a language model that judges answers."""

import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import numpy as np
from pydantic import StrictBool, TypeAdapter

from tasks.errors import ConfigError
from tasks.evaluation.lines import Text, bad_lines, fit, read_lines, read_object
from tasks.evaluation.stages import Row, said
from tasks.evaluation.statistics import Estimate, Numbers, estimate, say_interval

FEWEST = 10
"""Labels that an agreement is measured from."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a person says of an answer."""

    judge: Text
    """Who should say the same."""
    label: StrictBool
    id: Text = ""
    """Of the question."""
    question: Text = ""
    """Its text, where no id is given."""
    answer: Text | None = None
    """The answer that was read; without it, whatever is answered."""

    def is_of(self, row: Row) -> bool:
        asked = self.id == row.query.id if self.id else self.question.casefold() == row.query.query.casefold()
        return asked and self.answer in (None, row.whole.text, said(row.whole))


_KEYS = [field.name for field in fields(Label)]
_LABEL = TypeAdapter(Label)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far people agree with one version of a judge."""

    judge: str
    """As ``name@version``."""
    counts: Counter[tuple[bool, bool]]
    """Answers by what a person and what the judge says."""
    kappa: Estimate | None = None
    """Cohen's κ; None where the labels cannot tell it."""
    note: str = ""
    """Why they cannot."""


def load_labels(path: str, judges: Collection[str]) -> list[Label]:
    """What people say of answers, from a jsonl file; nothing without a path.

    Raises:
        ConfigError: the file cannot be read, or has bad lines, or such as are of another judge.
    """

    def parse(line: str, _number: int) -> Label:
        label = fit(_LABEL, read_object(line, _KEYS, "`judge`, `label`, and `id` or `question`"))
        if bool(label.id) == bool(label.question):
            raise ValueError("name the question by `id` or by `question`")
        if label.judge not in judges:
            raise ValueError(f"there is no judge {label.judge}: there are {', '.join(judges)}")
        return label

    labels, problems = read_lines(path, "labels", parse) if path else ([], {})
    if problems:
        raise ConfigError(bad_lines(path, "labels", sorted(problems.items()), len(problems)))
    return labels


def agree(judge: str, pairs: Sequence[tuple[bool, bool]], confidence: float) -> Agreement:
    """The agreement of people with a judge, from what a person and what the judge says of each answer.

    Its measure is Cohen's κ (Educational and Psychological Measurement 20, 1960): 1 where they always agree, 0 where as
    often as by chance.
    """
    people, told = zip(*pairs, strict=True)
    counts = Counter(pairs)
    if len(pairs) < FEWEST:
        return Agreement(judge, counts, note=f"too few labels: κ takes {FEWEST}")
    if len(set(people)) == 1:
        return Agreement(judge, counts, note=f"every label is {'yes' if people[0] else 'no'}: κ takes some of both")
    return Agreement(judge, counts, estimate(told, confidence, people, _kappa))


def _kappa(judge: Numbers, people: Numbers) -> Numbers:
    """Over the last axis. A resample in which all say the same shows no agreement beyond chance, and counts as 0."""
    from sklearn.exceptions import UndefinedMetricWarning
    from sklearn.metrics import cohen_kappa_score

    def one(*sides: Numbers) -> float:
        return float(cohen_kappa_score(*sides, labels=[0, 1], replace_undefined_by=0.0))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # of such resamples
        return np.vectorize(one, signature="(n),(n)->()")(judge, people)


def agreement_table(agreements: Sequence[Agreement], confidence: float) -> list[dict[str, str]]:
    """By version of a judge: counts of what people and the judge say, and κ."""
    columns = {
        "both yes": (True, True),
        "both no": (False, False),
        "only people yes": (True, False),
        "only the judge yes": (False, True),
    }
    return [
        {"judge": each.judge, "labels": str(each.counts.total())}
        | {column: str(each.counts[pair]) for column, pair in columns.items()}
        | {"Cohen's κ": f"{each.kappa.mean:.3f}" if each.kappa else each.note}
        | {f"{confidence:.0%} interval": say_interval(each.kappa) if each.kappa else ""}
        for each in agreements
    ]
