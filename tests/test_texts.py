"""Texts beside short references, by SQuAD's rules; every value is worked out by hand."""

import pytest

from tasks.evaluation.texts import exact_match, holds, share_held, token_f1


@pytest.mark.parametrize(
    ("text", "references", "exact", "f1"),
    [
        ("The Ferry.", ["ferry"], 1.0, 1.0),  # case, articles and punctuation do not count
        ("the red ferry", ["a ferry"], 0.0, 2 / 3),  # one of two words, and the whole reference
        ("red ferry", ["blue bus", "red boat"], 0.0, 0.5),  # the best reference counts
        ("ferry ferry", ["ferry"], 0.0, 2 / 3),  # a word counts as often as it occurs
        ("bus", ["ferry"], 0.0, 0.0),
        ("", ["ferry"], 0.0, 0.0),
        ("ferry", [], 0.0, 0.0),
    ],
)
def test_words_in_common_are_counted_as_in_squad(text: str, references: list[str], exact: float, f1: float) -> None:
    assert exact_match(text, references) == exact
    assert token_f1(text, references) == pytest.approx(f1)


def test_a_reference_is_held_as_whole_words_in_a_row() -> None:
    assert holds("It leaves at 7 °C, not above.", ["eight", "7 °C"])
    assert not holds("It leaves at 37 °C.", ["7 °C"])
    assert not holds("seven or more days", ["seven days"])


def test_what_is_not_in_the_sources_is_not_supported() -> None:
    assert share_held("The ferry leaves at ten", ["A ferry leaves.", "ten"]) == pytest.approx(3 / 4)
    assert share_held("the", ["the"]) == 0.0
