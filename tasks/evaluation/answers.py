"""Scores of generated answers beside their references, row by row.

Whatever a model writes gets a score: an answer that is missing, empty or not what was asked counts as wrong.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.config.training import ScoringConfig
from tasks.errors import ConfigError
from tasks.evaluation.scores import MACRO_F1, Score, make_score
from tasks.schemas import NOTHING, parse, read_schema_file, validator_of

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

SHOWN = 5
"""Unfit references named in one message."""

Measure = Callable[[str, str], float]


def check_scoring(scoring: ScoringConfig, rows: Sequence[str], references: Sequence[str]) -> None:
    """That the references can be scored as asked, to be called before anything is trained.

    Raises:
        ConfigError: the schema cannot be used, or references are no JSON, break the schema or have no label.
    """
    schema = load_schema(scoring.json_schema) if "schema_valid" in scoring.scores and scoring.json_schema else None
    unfit = [
        f"{row}: {problem}"
        for row, reference in zip(rows, references, strict=True)
        if (problem := _find_unfit(reference, scoring, schema))
    ]
    if unfit:
        more = [f"and {len(unfit) - SHOWN} more"] if len(unfit) > SHOWN else []
        raise ConfigError(
            "\n  ".join(
                [
                    f"{len(unfit)} of {len(references)} reference answers cannot be scored by "
                    f"{', '.join(scoring.scores)}: correct the rows, or `scoring`",
                    *unfit[:SHOWN],
                    *more,
                ]
            )
        )


def measure_answers(
    rows: Sequence[str],
    answers: Sequence[str | None],
    references: Sequence[str],
    scoring: ScoringConfig,
    confidence: float = 0.95,
) -> dict[str, Score]:
    """All scores that the configuration asks for, in its order, with their intervals.

    Args:
        rows: ids of the rows.
        answers: what one contender answered to each.
        references: the right answers.
        scoring: which scores.
        confidence: of the intervals.
    """
    by_row = score_answers(answers, references, scoring)
    told, true = _number_labels(answers, references, scoring.label_key)
    return {
        name: make_score(name, rows, told, true, confidence)
        if name == MACRO_F1
        else make_score(name, rows, by_row[name], confidence=confidence)
        for name in scoring.scores
    }


def score_answers(
    answers: Sequence[str | None], references: Sequence[str], scoring: ScoringConfig
) -> dict[str, list[float]]:
    """By score, one value between 0 and 1 for each row; macro F1, a score of all rows together, aside.

    - ``exact_match``: the same JSON object or array, however it is spaced and ordered, else the same text but for
      white space.
    - ``label_accuracy``: the same label.
    - ``valid_json``: the answer is one JSON value and nothing else.
    - ``schema_valid``: it also satisfies the schema.
    - ``field_f1``: F1 over the pairs of path and value, as in Kim et al., "OCR-free Document Understanding
      Transformer" (Donut), 2022; the order of a list does not count.
    - ``overlap``: chrF (Popović, 2015) as sacrebleu computes it, from runs of up to six characters: unlike ROUGE it
      needs no words to be cut out, so it fits every language.

    Raises:
        ConfigError: the schema cannot be used.
    """
    measures = {name: _measure(name, scoring) for name in scoring.scores if name != MACRO_F1}
    return {
        name: [_score_row(measure, answer, reference) for answer, reference in zip(answers, references, strict=True)]
        for name, measure in measures.items()
    }


def load_schema(path: str) -> "Validator":
    """The JSON schema of a file, checked; nothing is fetched that it refers to outside the file.

    Raises:
        ConfigError: it cannot be read, or is no JSON schema.
    """
    return validator_of(read_schema_file(Path(path)), path)


def _measure(name: str, scoring: ScoringConfig) -> Measure:
    if name == "overlap":
        from sacrebleu.metrics import CHRF

        return partial(_overlap, CHRF())
    if name == "schema_valid":
        return partial(_schema_valid, load_schema(scoring.json_schema or ""))
    if name == "label_accuracy":
        return partial(_same_label, scoring.label_key)
    return {"exact_match": _exact_match, "valid_json": _valid_json, "field_f1": _field_f1}[name]


def _score_row(measure: Measure, answer: str | None, reference: str) -> float:
    if not isinstance(answer, str) or not answer.strip():
        return 0.0
    try:
        return measure(answer, reference)
    except RecursionError:  # brackets in brackets, hundreds deep
        return 0.0


def _exact_match(answer: str, reference: str) -> float:
    wanted, given = parse(reference), parse(answer)
    if isinstance(wanted, dict | list):
        return float(given is not NOTHING and _canonical(given) == _canonical(wanted))
    return float(answer.split() == reference.split())


def _same_label(key: str | None, answer: str, reference: str) -> float:
    label = _label(reference, key)
    return float(label is not None and _label(answer, key) == label)


def _valid_json(answer: str, _reference: str) -> float:
    return float(parse(answer) is not NOTHING)


def _schema_valid(schema: "Validator", answer: str, _reference: str) -> float:
    value = parse(answer)
    return float(value is not NOTHING and _satisfies(schema, value))


def _field_f1(answer: str, reference: str) -> float:
    given, wanted = (Counter(_fields(parse(text))) for text in (answer, reference))
    return 2 * (given & wanted).total() / max(1, given.total() + wanted.total())


def _overlap(metric: Any, answer: str, reference: str) -> float:
    return float(metric.sentence_score(answer, [reference]).score) / 100


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _satisfies(schema: "Validator", value: Any) -> bool:
    from referencing.exceptions import Unresolvable

    try:
        return bool(schema.is_valid(value))
    except Unresolvable as error:
        raise ConfigError(
            f"the JSON schema refers to {error.ref}, which is not in its file: write the definition into the file"
        ) from None


def _fields(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Pairs of path and value of all leaves; an empty object or list is a leaf, too."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _fields(item, (*path, key))
    elif isinstance(value, list) and value:
        for item in value:
            yield from _fields(item, (*path, "[]"))
    elif value is not NOTHING:
        yield path, _canonical(value)


def _label(text: str | None, key: str | None) -> str | None:
    """The label an answer gives: the value under the key, or the whole answer; None where there is none."""
    if not isinstance(text, str):
        return None
    if key is None:
        return " ".join(text.split()) or None
    value = parse(text)
    return _canonical(value[key]) if isinstance(value, dict) and key in value else None


def _number_labels(
    answers: Sequence[str | None], references: Sequence[str], key: str | None
) -> tuple[list[float], list[float]]:
    """Labels of answers and of references as numbers from 0; -1 for an answer's label that no reference has."""
    true = [_label(reference, key) or "" for reference in references]
    numbers = {label: float(number) for number, label in enumerate(sorted(set(true)))}
    told = [_label(answer, key) for answer in answers]
    return [numbers.get(label, -1.0) if label else -1.0 for label in told], [numbers[label] for label in true]


def _find_unfit(reference: str, scoring: ScoringConfig, schema: "Validator | None") -> str:
    asked = set(scoring.scores)
    if asked & {"valid_json", "schema_valid", "field_f1"} and parse(reference) is NOTHING:
        return "is not JSON"
    if schema and not _satisfies(schema, parse(reference)):
        return "breaks the schema"
    if asked & {"label_accuracy", MACRO_F1} and _label(reference, scoring.label_key) is None:
        return f"has no label under {scoring.label_key!r}" if scoring.label_key else "is empty"
    return ""
