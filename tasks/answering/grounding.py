"""Whether the passages answer the question: a logistic regression over three features, and when to refuse.

The features are the highest cosine of question and passage, and what the first passage, and its best sentence,
cover of the question. They need no BM25 scores, so they mean the same in every mode of search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.answering.extractive import weigh
from tasks.errors import ConfigError
from tasks.records import Passage, known_fields

FOLDS = 5
CONFIDENCE = 0.99
"""Higher than usual, because questions about one document are alike and count for less than as many others."""
SEED = 20
Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Grounding:
    """The coefficients of the model, and the least probability with which to answer.

    The default was fitted on the 1,190 questions of xquad, each over six indices of 200-token passages that lack a
    random half of the paragraphs, with the packaged embedder and hybrid search. On the same questions 89% of its
    refusals are right, and it refuses 91% of what cannot be answered. Those questions share words with the text: for
    the paraphrases of data/samples/golden.jsonl it is 58% and 90%, so calibrate on questions as people ask them.
    """

    intercept: float = -7.72
    similarity: float = 8.54
    passage: float = 3.35
    sentence: float = 6.29
    usual_similarity: float = 0.48
    """Stands in where only full text was searched."""
    threshold: float = 0.5

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Grounding":
        return cls(**known_fields(cls, values, "a release's grounding"))

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    def probability(self, question: str, passages: Sequence[Passage]) -> float:
        """That the passages answer the question."""
        if not passages:
            return 0.0
        similarity, passage, sentence = _features(question, passages)
        if similarity is None:
            similarity = self.usual_similarity
        score = self.similarity * similarity + self.passage * passage + self.sentence * sentence
        return 1 / (1 + exp(-score - self.intercept))


@dataclass(frozen=True, slots=True)
class Example:
    """A question with what was found for it, and whether that answers it."""

    question: str
    passages: Sequence[Passage]
    answerable: bool


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A grounding, and how well it refuses the examples it was calibrated on, each judged by the others."""

    grounding: Grounding
    examples: int
    unanswerable: int
    refused: int
    rightly: int
    """Of the refused, those that are unanswerable."""

    @property
    def precision(self) -> float:
        """Share of the refusals that were right; 1 where there were none."""
        return self.rightly / self.refused if self.refused else 1.0

    @property
    def recall(self) -> float:
        """Share of the unanswerable questions that were refused."""
        return self.rightly / self.unanswerable

    @property
    def sentence(self) -> str:
        """The figures for a person."""
        return (
            f"Cross-validated on {self.examples} questions, {self.unanswerable} of them unanswerable: {self.refused} "
            f"refused, {self.rightly} of them rightly (precision {self.precision:.3f}, recall {self.recall:.3f}). "
            f"It refuses below a probability of {self.grounding.threshold:.3f}."
        )


def calibrate(examples: Sequence[Example], min_precision: float) -> Calibrated:
    """Fit the model, and choose the threshold that refuses most while the precision of refusals is surely high enough.

    Surely: what counts is the 99% lower bound of the precision (Clopper and Pearson, 1934), as in Geifman and
    El-Yaniv, "Selective Classification for Deep Neural Networks", 2017. Where no threshold comes so far, as with few
    examples, it is the one with the highest bound.

    The figures are honest: every question is judged by a model and a threshold that come from other questions.

    Raises:
        ConfigError: too few questions are answerable, or unanswerable.
    """
    _check_number(examples)
    answerable = np.array([example.answerable for example in examples], dtype=bool)
    features, usual = _fill(np.array([_features(each.question, each.passages) for each in examples], dtype=np.float64))
    folds, probabilities = _cross_validate(features, answerable, [example.question for example in examples])
    refused = np.zeros(len(examples), dtype=bool)
    for rest, fold in folds:
        refused[fold] = probabilities[fold] < _choose(probabilities[rest], answerable[rest], min_precision)
    model = _model().fit(features, answerable)
    similarity, passage, sentence = map(float, model.coef_[0])
    threshold = _choose(probabilities, answerable, min_precision)
    return Calibrated(
        Grounding(float(model.intercept_[0]), similarity, passage, sentence, usual, threshold),
        examples=len(examples),
        unanswerable=int(np.sum(~answerable)),
        refused=int(np.sum(refused)),
        rightly=int(np.sum(refused & ~answerable)),
    )


def _features(question: str, passages: Sequence[Passage]) -> tuple[float | None, float, float]:
    if not passages:
        return 0.0, 0.0, 0.0
    similarities = [passage.similarity for passage in passages if passage.similarity is not None]
    first = weigh(question, passages)[0]
    return max(similarities, default=None), first.coverage, first.best_sentence


def _check_number(examples: Sequence[Example]) -> None:
    for answerable, kind in ((True, "answerable"), (False, "unanswerable")):
        count = len({example.question for example in examples if example.answerable == answerable})
        if count < FOLDS:
            raise ConfigError(f"calibration needs {FOLDS} {kind} questions, and there are {count}: add questions")


def _fill(features: Numbers) -> tuple[Numbers, float]:
    """The features with similarities that are missing replaced by the mean of the others, and that mean."""
    known = features[~np.isnan(features[:, 0]), 0]
    usual = float(known.mean()) if len(known) else 0.0
    return np.nan_to_num(features, nan=usual), usual


def _cross_validate(features: Numbers, answerable: Flags, questions: Sequence[str]) -> tuple[list[Fold], Numbers]:
    """The folds, each as (the others, itself), and each example's probability by the model of the other folds."""
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    folds = list(split.split(features, answerable, questions))
    return folds, cross_val_predict(_model(), features, answerable, cv=folds, method="predict_proba")[:, 1]


def _model() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10)  # weak: three features, all of them shares or cosines


def _choose(probabilities: Numbers, answerable: Flags, min_precision: float) -> float:
    """The threshold, half-way between two probabilities."""
    from scipy.stats import beta

    order = np.argsort(probabilities)
    ascending, following = probabilities[order], np.append(probabilities[order][1:], 1.0)
    refused = np.arange(1, len(order) + 1)
    rightly = np.cumsum(~answerable[order])
    surely = np.nan_to_num(beta.ppf(1 - CONFIDENCE, rightly, refused - rightly + 1))
    surely[ascending == following] = 0  # no threshold parts equals
    enough = np.flatnonzero(surely >= min_precision)
    last = enough[-1] if len(enough) else np.argmax(surely)
    return float((ascending[last] + following[last]) / 2)
