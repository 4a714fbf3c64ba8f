"""What each check leaves out, stops or only tells, with the rows it is about."""

from datetime import date
from typing import Any, Literal

import pytest

from tasks.config.training import CheckConfig
from tasks.records import Finding
from tasks.training.checks import (
    check_dates,
    check_enough,
    check_labels,
    check_lengths,
    check_malformed,
    check_private,
    check_similar,
    drop_duplicates,
)
from tasks.training.formats import Example, Turn
from tasks.training.rows import BadRow
from tests.examples import example, pair


def count_words(conversations: list[list[Turn]]) -> list[int]:
    return [sum(len(turn["content"].split()) for turn in turns) for turns in conversations]


def places(examples: list[Example]) -> list[str]:
    return [one.place for one in examples]


def test_malformed_rows_are_told_by_reason_and_stop_the_run_where_they_are_too_many() -> None:
    bad = [BadRow("a:1", "is not JSON"), BadRow("a:2", "has an empty turn"), BadRow("a:5", "is not JSON")]
    assert check_malformed(bad, 100, max_broken=0.03) == [
        Finding("dropped", "2 rows left out: each is not JSON.", ("a:1", "a:5")),
        Finding("dropped", "1 row left out: it has an empty turn.", ("a:2",)),
    ]
    stop = check_malformed(bad, 100, max_broken=0.02)[-1]
    assert stop.severity == "stop"
    assert stop.sentence.startswith("3 of 100 rows (3.00%) malformed, where at most 2.00% may be")
    assert check_malformed([], 0, max_broken=0) == []


def test_of_rows_that_stand_twice_the_oldest_stays() -> None:
    rows = [
        example("q", place="a:1", day=date(2026, 2, 1)),
        example("q", place="a:2", day=date(2026, 1, 1)),
        example("q", "no", place="a:3"),
    ]
    kept, findings = drop_duplicates(rows)
    assert places(kept) == ["a:2", "a:3"]
    assert findings == [Finding("dropped", "1 row left out that stand elsewhere word for word.", ("a:1",))]
    assert drop_duplicates(kept) == (kept, [])


@pytest.mark.parametrize(("policy", "kept"), [("stop", 2), ("drop", 1), ("report", 2)])
def test_private_data_stops_is_left_out_or_told_and_never_repeated(
    policy: Literal["stop", "drop", "report"], kept: int
) -> None:
    rows = [example("I am ada@lovelace.org", place="a:1"), example("I am nobody", place="a:2")]
    left, findings = check_private(rows, policy)
    assert len(left) == kept
    severity = {"stop": "stop", "drop": "dropped", "report": "note"}[policy]
    assert findings == [Finding(severity, "1 row with secrets or personal data (e-mail address).", ("a:1",))]  # type: ignore[arg-type]


def test_private_data_is_looked_for_in_both_answers_of_a_pair() -> None:
    _, findings = check_private([pair("q", "no", "ada@lovelace.org"), pair("q2", "+44 20 7946 0958", "no")], "stop")
    assert [finding.places for finding in findings] == [("q",), ("q2",)]


def test_rows_to_train_on_from_after_the_cut_off_are_left_out_and_old_rows_to_score_on_told() -> None:
    old, new = date(2026, 6, 30), date(2026, 7, 1)
    train = [example("1", day=old), example("2", day=new)]
    kept, findings = check_dates(train, [example("3", day=old), example("4", day=new)], new)
    assert places(kept) == ["1"]
    assert [(finding.severity, finding.places) for finding in findings] == [("dropped", ("2",)), ("note", ("3",))]
    assert check_dates(train, [], None) == (train, [])


QUESTION = "my card has not come although it was sent three weeks ago from the branch in the town where I live"
SIMILAR = QUESTION.replace("my card", "the card")


def test_a_question_that_is_scored_is_not_trained_on_whatever_the_answer_and_the_spelling() -> None:
    train = [example("Where is my card?", "A", place="t:1"), example("Where was my card?", place="t:2")]
    held_out = [example("where is my card", "B", place="h:1")]
    kept, findings = check_similar(train, held_out, CheckConfig())
    assert places(kept) == ["t:2"]
    assert [(finding.severity, finding.places) for finding in findings] == [("dropped", ("t:1 = h:1",))]


@pytest.mark.parametrize(
    ("leaked", "severity", "kept"), [("drop", "dropped", 0), ("stop", "stop", 1), ("report", "note", 1)]
)
def test_a_row_that_is_nearly_one_that_is_scored_is_a_leak(leaked: Any, severity: str, kept: int) -> None:
    checks = CheckConfig(leaked=leaked, near_duplicate=0.8)
    left, findings = check_similar([example(SIMILAR, place="t:1")], [example(QUESTION, place="h:1")], checks)
    assert len(left) == kept
    assert [(finding.severity, finding.places) for finding in findings] == [(severity, ("t:1 = h:1",))]
    assert check_similar([example(SIMILAR)], [example(QUESTION)], CheckConfig(near_duplicate=0.95))[1] == []


def test_a_pair_whose_prompt_is_scored_is_a_leak() -> None:
    kept, findings = check_similar([pair("q", "a", "b")], [pair("Q!", "c", "d")], CheckConfig())
    assert kept == []
    assert findings[0].places == ("q = Q!",)


def test_near_duplicates_to_train_on_are_told_with_their_twin_and_stay() -> None:
    train = [example(QUESTION, place="t:1"), example("else", place="t:2"), example(SIMILAR, place="t:3")]
    kept, findings = check_similar(train, [], CheckConfig(near_duplicate=0.8))
    assert places(kept) == ["t:1", "t:2", "t:3"]
    assert [(finding.severity, finding.places) for finding in findings] == [("note", ("t:3 = t:1",))]


def test_long_rows_are_told_with_the_tokens_that_would_be_cut_and_stop_the_run_where_they_are_many() -> None:
    rows = [example("one two three", "four five", place="a:1"), example("one", "two", place="a:2")]
    used, findings = check_lengths("to train on", rows, 3, 0.5, count_words)
    assert used == 3 + 2
    assert findings == [
        Finding(
            "note",
            "1 of 2 rows to train on (50.0%) are longer than 3 tokens; 2 of 7 tokens (28.6%) would be cut.",
            ("a:1",),
        )
    ]
    stop = check_lengths("to train on", rows, 3, 0.4, count_words)[1][0]
    assert stop.severity == "stop"
    assert stop.sentence.endswith("At most 40.0% of the rows may be: raise max_length or max_cut.")
    assert check_lengths("to train on", rows, 5, 0, count_words) == (7, [])
    assert check_lengths("to train on", [], 5, 0, count_words) == (0, [])


def test_a_pair_is_as_long_as_its_longer_answer() -> None:
    used, findings = check_lengths("to train on", [pair("one", "two", "two three four")], 3, 1, count_words)
    assert used == 2 + 3
    assert findings[0].places == ("one",)


def test_labels_are_told_with_the_most_frequent_the_rarest_and_those_never_trained_on() -> None:
    train = [example(f"{n}", label=label) for n, label in enumerate("aaabbc")]
    balance, unseen = check_labels(train, [example("6", label="a"), example("7", label="d")])
    assert balance.sentence == "3 labels to train on; the most frequent, a, has 3 rows, the rarest, c, has 1."
    assert (unseen.sentence, unseen.places) == ("1 labels are scored and never trained on: d.", ("7",))
    assert check_labels([example("1")], [example("2")]) == []


def test_too_few_rows_to_train_on_and_none_to_score_on_stop_the_run() -> None:
    assert check_enough([example("1")], [example("2")], 1) == []
    few, none = check_enough([example("1")], [], 2)
    assert few == Finding("stop", "1 row to train on, where at least 2 must be: add rows or lower min_rows.")
    assert none.severity == "stop"
