"""Scores of generated answers checked by hand, and that no answer, however odd, makes them fail."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from tasks.config.training import ScoringConfig
from tasks.errors import ConfigError
from tasks.evaluation.answers import check_scoring, load_schema, measure_answers, score_answers
from tasks.evaluation.scores import HELD_OUT_LOSS, compare_scores, make_score
from tasks.evaluation.statistics import estimate, macro_f1

SCHEMA = {
    "type": "object",
    "properties": {"intent": {"enum": ["refund", "delivery"]}, "order": {"type": ["string", "null"]}},
    "required": ["intent", "order"],
    "additionalProperties": False,
}
REFERENCE = '{"intent": "refund", "order": "A-1"}'


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("schema") / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return str(path)


def value(score: str, answer: Any, reference: str = REFERENCE, **changes: Any) -> float:
    return score_answers([answer], [reference], ScoringConfig(scores=(score,), **changes))[score][0]


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ('{"order":"A-1",\n "intent":"refund"}', REFERENCE, 1),
        ('{"order": "A-1", "intent": "refund", "more": null}', REFERENCE, 0),
        ('{"n": true}', '{"n": 1}', 0),
        ("[2, 1]", "[1, 2]", 0),
        ("  Yes,\n of course ", "Yes, of course", 1),
        ("yes, of course", "Yes, of course", 0),
        ("42.0", "42", 0),
    ],
)
def test_exact_match_is_of_json_values_or_of_words(answer: str, reference: str, expected: float) -> None:
    assert value("exact_match", answer, reference) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (REFERENCE, 1),
        ("null", 1),
        ('```json\n{"a": 1}\n```', 0),
        ('{"a": NaN}', 0),
        ('{"a": 1} ok', 0),
        ("{'a': 1}", 0),
    ],
)
def test_valid_json_is_one_value_and_nothing_else(answer: str, expected: float) -> None:
    assert value("valid_json", answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (REFERENCE, 1),
        ('{"intent": "delivery", "order": null}', 1),
        ('{"intent": "fly", "order": null}', 0),
        ('{"intent": "refund"}', 0),
        ("[]", 0),
        ("no JSON", 0),
    ],
)
def test_the_schema_is_asked_of_the_answer_alone(schema: str, answer: str, expected: float) -> None:
    assert value("schema_valid", answer, json_schema=schema) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ('{"intent": "refund", "order": "A-2"}', REFERENCE, 1 / 2),
        ('{"intent": "refund"}', REFERENCE, 2 / 3),
        ('{"intent": "refund", "order": "A-1", "invented": 1}', REFERENCE, 4 / 5),
        ('{"a": {"b": 1, "c": [2, 3, 3]}}', '{"a": {"c": [3, 2], "b": 1}}', 2 * 3 / 7),
        ('{"a": []}', '{"a": []}', 1),
        ('{"a": 1}', '{"a": "1"}', 0),
        ("sorry", REFERENCE, 0),
    ],
)
def test_field_f1_is_over_pairs_of_path_and_value(answer: str, reference: str, expected: float) -> None:
    assert value("field_f1", answer, reference) == pytest.approx(expected)


def test_labels_are_read_under_their_key_or_are_the_whole_answer() -> None:
    assert value("label_accuracy", '{"intent": "refund", "order": "Z-9"}', label_key="intent") == 1
    assert value("label_accuracy", '{"order": "A-1"}', label_key="intent") == 0
    assert value("label_accuracy", "refund", label_key="intent") == 0
    assert value("label_accuracy", " refund\n", "refund") == 1
    assert value("label_accuracy", "x", '{"order": 1}', label_key="intent") == 0


def test_overlap_is_chrf_in_any_script() -> None:
    assert value("overlap", "Müller wohnt in 東京", "Müller wohnt in 東京") == 1
    assert value("overlap", "x", "y") == 0
    # One of two characters is right and no pair: precision and recall are (1/2 + 0) / 2.
    assert value("overlap", "ab", "ac") == pytest.approx(1 / 4)


ALL = ("exact_match", "label_accuracy", "macro_f1", "valid_json", "schema_valid", "field_f1", "overlap")


@pytest.mark.parametrize("answer", [None, math.nan, "", " \n", "[" * 5000, "[" * 950 + "]" * 950, "9" * 5000, "\x00"])
@pytest.mark.parametrize("label_key", [None, "intent"])
def test_an_answer_that_is_none_counts_as_wrong(schema: str, answer: Any, label_key: str | None) -> None:
    scoring = ScoringConfig(scores=ALL, json_schema=schema, label_key=label_key)
    found = measure_answers(["1", "2"], [answer, REFERENCE], [REFERENCE, REFERENCE], scoring)
    assert list(found) == list(ALL)
    assert found["macro_f1"].estimate.mean == pytest.approx(2 / 3)
    # Brackets in brackets may be valid JSON still; nothing else is right.
    assert [score.values[0] for name, score in found.items() if name not in ("macro_f1", "valid_json")] == [0] * 5
    assert all(score.values[1] in (0, 1) and score.estimate.high == 1 for score in found.values())


def test_an_answer_nested_too_deeply_for_a_schema_that_refers_to_itself_counts_as_wrong(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"type": "array", "items": {"$ref": "#"}}')
    assert value("schema_valid", "[[[]]]", json_schema=str(path)) == 1
    assert value("schema_valid", "[" * 500 + "]" * 500, json_schema=str(path)) == 0


leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4)
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(answer=st.text(max_size=30) | json_values.map(json.dumps), reference=json_values.map(json.dumps))
def test_every_answer_gets_a_value_between_0_and_1_and_the_reference_itself_gets_1(answer: str, reference: str) -> None:
    scoring = ScoringConfig(scores=("exact_match", "label_accuracy", "valid_json", "field_f1", "overlap"))
    found = score_answers([answer, reference], [reference, reference], scoring)
    assert all(0 <= number <= 1 for numbers in found.values() for number in numbers)
    assert all(numbers[1] == 1 for numbers in found.values())


def labels(answers: str, references: str) -> tuple[Any, Any]:
    scoring = ScoringConfig(scores=("macro_f1",))
    score = measure_answers([str(n) for n in range(len(answers))], list(answers), list(references), scoring)["macro_f1"]
    return score, score.estimate.mean


def test_macro_f1_counts_every_label_the_same() -> None:
    # a: 3 of 3 found, one told too often, F1 6/7; b: missed, F1 0.
    assert labels("aaaa", "aaab")[1] == pytest.approx((6 / 7 + 0) / 2)


def test_an_invented_label_costs_recall_and_is_no_label_of_its_own() -> None:
    assert labels("axyz", "aaaa")[1] == pytest.approx(2 / 5)
    assert labels("axxx", "aaaa")[1] == labels("axyz", "aaaa")[1]


letters = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcx")), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(letters)
def test_macro_f1_is_that_of_scikit_learn_over_the_references_labels(pairs: list[tuple[str, str]]) -> None:
    true, told = zip(*pairs, strict=True)
    expected = f1_score(true, told, labels=sorted(set(true)), average="macro", zero_division=0)
    assert labels("".join(told), "".join(true))[1] == pytest.approx(expected)


def test_macro_f1_of_many_resamples_is_that_of_each() -> None:
    rng = np.random.default_rng(3)
    true, told = rng.integers(0, 4, size=(5, 30)), rng.integers(-1, 4, size=(5, 30))
    assert macro_f1(told, true) == pytest.approx([float(macro_f1(a, b)) for a, b in zip(told, true, strict=True)])


def test_in_a_resample_a_label_that_is_only_told_counts_and_one_that_is_nowhere_does_not() -> None:
    assert float(macro_f1(np.array([0, 1]), np.array([0, 0]))) == pytest.approx((2 / 3 + 0) / 2)
    assert float(macro_f1(np.array([0, 2]), np.array([0, 2]))) == 1


def test_the_interval_of_macro_f1_holds_its_value_and_narrows_with_rows() -> None:
    few, many = (labels("abca" * n, "abcb" * n)[0].estimate for n in (5, 50))
    assert few.low < few.mean < few.high
    assert many.high - many.low < (few.high - few.low) / 2


def test_two_contenders_are_compared_by_macro_f1_and_the_lost_rows_named() -> None:
    ours, theirs = labels("aabb" * 10 + "bb", "aabb" * 10 + "aa")[0], labels("aabb" * 10 + "aa", "aabb" * 10 + "aa")[0]
    found = compare_scores(ours, theirs)
    assert found.other == 1
    assert found.difference.mean == pytest.approx(found.candidate - 1)
    assert found.worst == (("40", 1.0, 0.0), ("41", 1.0, 0.0))
    assert found.p_value == pytest.approx(2 / 2**2)
    assert compare_scores(theirs, theirs).p_value == 1


def test_a_loss_counts_every_token_the_same() -> None:
    score = make_score(HELD_OUT_LOSS, ["short", "long"], [4.0, 1.0], [10, 30])
    assert score.estimate.mean == pytest.approx((4 * 10 + 1 * 30) / 40)


def test_of_a_loss_less_is_better_and_the_row_that_lost_most_tokens_comes_first() -> None:
    tokens = [10, 40, 10]
    ours = make_score(HELD_OUT_LOSS, ["1", "2", "3"], [3.0, 1.5, 0.5], tokens)
    theirs = make_score(HELD_OUT_LOSS, ["1", "2", "3"], [2.0, 1.0, 1.0], tokens)
    found = compare_scores(ours, theirs)
    assert found.worse_by == pytest.approx((10 + 20 - 5) / 60)
    assert [row for row, _, _ in found.worst] == ["2", "1"]
    assert found.worse_without_worst == pytest.approx((10 - 5) / 20)


def test_exchanges_that_come_to_the_same_count_as_the_same_whatever_the_last_bit_says() -> None:
    theirs = 10 * np.random.default_rng(25).random(200)
    ours = theirs + np.append([0.001, 0.001, 0.001, -0.001], np.zeros(196))
    found = [make_score(HELD_OUT_LOSS, list(map(str, range(200))), values.tolist()) for values in (ours, theirs)]
    # Of the 16 ways to exchange four gains of a thousandth, 5 come to two or more, and 5 to as much the other way.
    assert compare_scores(*found).p_value == pytest.approx(10 / 16)


def test_a_token_weighted_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    tokens = rng.integers(5, 200, size=(150, 80)).astype(float)
    nats = rng.gamma(4, 0.5, size=tokens.shape)
    found = [estimate(row, 0.95, weights) for row, weights in zip(nats, tokens, strict=True)]
    assert 0.88 <= np.mean([each.low <= 2 <= each.high for each in found]) <= 0.99


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("abx")), min_size=2, max_size=30), st.randoms())
def test_the_order_of_rows_changes_no_score(pairs: list[tuple[str, str]], random: Any) -> None:
    shuffled = random.sample(pairs, len(pairs))
    scoring = ScoringConfig(scores=("exact_match", "macro_f1", "overlap"))
    before, after = (
        measure_answers([str(n) for n in range(len(pairs))], [t for _, t in order], [r for r, _ in order], scoring)
        for order in (pairs, shuffled)
    )
    assert [s.estimate.mean for s in before.values()] == pytest.approx([s.estimate.mean for s in after.values()])


def test_contenders_scored_on_different_rows_cannot_be_compared() -> None:
    ours, theirs = (make_score("exact_match", rows, [1.0, 0.0]) for rows in (["1", "2"], ["1", "3"]))
    with pytest.raises(ValueError, match="different rows"):
        compare_scores(ours, theirs)


def test_every_row_needs_its_answer() -> None:
    with pytest.raises(ValueError, match="longer"):
        score_answers(["a"], ["a", "b"], ScoringConfig(scores=("exact_match",)))
    with pytest.raises(ValueError, match="2 rows, 1 values and 2 weights"):
        make_score("exact_match", ["1", "2"], [1.0])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read (No such file or directory): check its path"),
        ("{", "is not JSON: Expecting property name"),
        ('{"type": "objekt"}', "is not a JSON schema: 'objekt' is not valid under any of the given schemas at $.type"),
        ("[1]", "is not a JSON schema: [1] is not of type 'object', 'boolean'"),
    ],
)
def test_a_schema_that_cannot_be_used_is_an_error_of_the_configuration(
    tmp_path: Path, text: str | None, reason: str
) -> None:
    path = tmp_path / "schema.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_schema(str(path))
    assert reason in str(caught.value)


def test_a_schema_that_refers_to_the_outside_is_named_and_nothing_is_fetched(tmp_path: Path) -> None:
    path, outside = tmp_path / "schema.json", tmp_path / "intent.json"
    outside.write_text("{}")
    path.write_text(json.dumps({"properties": {"intent": {"$ref": outside.as_uri()}}}))
    scoring = ScoringConfig(scores=("schema_valid",), json_schema=str(path))
    with pytest.raises(ConfigError, match=r"refers to file:.*/intent.json, which is not in its file"):
        check_scoring(scoring, ["1"], [REFERENCE])


def test_references_that_no_answer_could_match_are_named_before_anything_is_trained(schema: str) -> None:
    scoring = ScoringConfig(scores=("schema_valid", "macro_f1"), json_schema=schema, label_key="intent")
    check_scoring(scoring, ["1"], [REFERENCE])
    with pytest.raises(ConfigError) as caught:
        check_scoring(scoring, ["f:1", "f:2", "f:3"], [REFERENCE, "sure", '{"intent": "refund"}'])
    assert str(caught.value).splitlines() == [
        "2 of 3 reference answers cannot be scored by schema_valid, macro_f1: correct the rows, or `scoring`",
        "  f:2: is not JSON",
        "  f:3: breaks the schema",
    ]
    with pytest.raises(ConfigError, match="f:1: has no label under 'intent'"):
        check_scoring(ScoringConfig(scores=("macro_f1",), label_key="intent"), ["f:1"], ['{"order": 1}'])
    with pytest.raises(ConfigError, match="and 2 more"):
        check_scoring(scoring, list("1234567"), ["sure"] * 7)
