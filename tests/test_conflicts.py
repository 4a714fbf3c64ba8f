"""Passages that contradict each other on what was asked are shown side by side with their dates."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answering.assistant import Assistant
from tasks.answering.conflicts import find_conflict
from tasks.answering.extractive import ExtractiveGenerator
from tasks.answering.generators import Generator
from tasks.answering.grounding import Grounding
from tasks.config.answering import PolicyConfig
from tasks.records import Generated, Passage
from tests.passages import passage

OLD = passage("Green tea is steeped at 80 degrees. Cups are warmed first.", document="old.md", date="2024-03-01")
NEW = passage("Green tea is steeped at 90 degrees.", document="new.md", date="2026-05-02")
QUESTION = "At how many degrees is green tea steeped?"


@pytest.mark.parametrize(
    ("question", "one", "other"),
    [
        (QUESTION, "Green tea is steeped at 80 degrees.", "Green tea is steeped at 90 degrees."),
        ("Who runs the parcel router?", "The parcel router is run by Heron.", "The parcel router is run by Falcon."),
        ("Is the old tariff supported?", "The old tariff is supported.", "The old tariff is not supported."),
        ("Is the old tariff supported?", "The old tariff is supported.", "The old tariff isn’t supported."),
        ("When does the shop open?", "The shop opens at 9:00 on weekdays.", "On weekdays the shop opens at 10:00."),
    ],
)
def test_a_figure_a_name_or_a_negation_is_a_contradiction(question: str, one: str, other: str) -> None:
    found = find_conflict(question, [passage(one, document="a"), passage(other, document="b")])
    assert [(each.text, each.cited) for each in found] == [(one, (1,)), (other, (2,))]


@pytest.mark.parametrize(
    ("question", "one", "other"),
    [
        ("the same twice", "Green tea is steeped at 80 degrees.", "Green tea is steeped at 80 degrees."),
        ("how is green tea steeped", "Green tea is steeped at 80 degrees.", "Black tea is steeped at 95 degrees."),
        ("what does the router do", "The router sorts parcels by weight.", "The router prints labels for letters."),
        ("how is green tea steeped", "Green tea is steeped.", "Green tea is steeped with care."),
        ("who sings", "Nothing here is about that.", "Neither is this."),
    ],
)
def test_what_is_of_something_else_or_only_says_more_is_none(question: str, one: str, other: str) -> None:
    assert find_conflict(question, [passage(one, document="a"), passage(other, document="b")]) == ()


def test_one_document_does_not_contradict_itself() -> None:
    assert find_conflict(QUESTION, [passage(OLD.text, document="a"), passage(NEW.text, document="a")]) == ()
    assert find_conflict(QUESTION, []) == ()


@given(st.permutations([OLD, NEW, passage("Green tea is steeped at 70 degrees.", document="third.md")]))
def test_whatever_the_order_the_same_statements_are_found_the_best_placed_first(passages: list[Passage]) -> None:
    found = find_conflict(QUESTION, passages)
    assert {each.text for each in found} == {f"Green tea is steeped at {degrees} degrees." for degrees in (70, 80, 90)}
    assert [each.cited for each in found] == [(1,), (2,), (3,)]


class Picks:
    """A model that picks the first passage, and says something of its own."""

    def answer(self, question: str, passages: Sequence[Passage], turns: Any, schema: Any = None) -> Generated:
        return Generated("At eighty degrees. [1]")


def answer(generator: Generator, **policy: Any) -> Any:
    asked = Assistant(
        reader=None,  # type: ignore[arg-type]
        generator=generator,
        prompt=[],
        policy=PolicyConfig(**policy),
        grounding=Grounding(threshold=0.0),
        versions={"index": "docs@1"},
    )
    return asked.answer_from(QUESTION, [OLD, NEW])


def test_what_a_model_says_is_followed_by_the_statements_with_their_dates() -> None:
    found = answer(Picks())
    assert found.text == (
        "At eighty degrees. [1]\n\nThe sources differ on this:\n"
        "- 2024-03-01: Green tea is steeped at 80 degrees. [1]\n"
        "- 2026-05-02: Green tea is steeped at 90 degrees. [2]"
    )
    assert [each.document for each in found.cited] == ["old.md", "new.md"]
    assert [each.cited for each in found.conflict] == [(1,), (2,)]
    assert "conflicts" in found.seconds


def test_a_quoted_answer_does_not_say_them_twice() -> None:
    found = answer(ExtractiveGenerator(2))
    assert found.text.count("80 degrees") == found.text.count("90 degrees") == 1
    assert [sentence.text for sentence in found.sentences] == [
        "Green tea is steeped at 80 degrees.",
        "Green tea is steeped at 90 degrees.",
    ]


def test_a_policy_may_leave_them_out() -> None:
    found = answer(Picks(), conflicts=False)
    assert (found.text, found.conflict) == ("At eighty degrees. [1]", ())
