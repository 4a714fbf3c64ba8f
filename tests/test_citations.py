"""Which sentence of an answer rests on which passages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answering.citations import read_sentences
from tasks.records import Sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tea steeps for two minutes. [1]", [("Tea steeps for two minutes.", (1,))]),
        ("Tea steeps for two minutes [1].", [("Tea steeps for two minutes.", (1,))]),
        ("It is hot [2][1] and wet [3].", [("It is hot", (2, 1)), ("and wet.", (3,))]),
        ("First. Second. [2]", [("First.", ()), ("Second.", (2,))]),
        ("Both say so. [1, 3]", [("Both say so.", (1, 3))]),
        ("One. [1] Two.", [("One.", (1,)), ("Two.", ())]),
        ("Dr. Smith left. [1]", [("Dr. Smith left.", (1,))]),
        ("Nobody says so.", [("Nobody says so.", ())]),
        ("There is no such passage. [7] [0]", [("There is no such passage.", ())]),
        ("", []),
    ],
)
def test_a_mark_cites_for_the_sentence_that_it_ends(text: str, expected: list[tuple[str, tuple[int, ...]]]) -> None:
    assert read_sentences(text, 3) == tuple(Sentence(*each) for each in expected)


@given(st.text(alphabet="ab. [1]29,\n", max_size=60), st.integers(0, 9))
def test_no_answer_cites_what_is_not_there_and_no_word_is_lost(text: str, passages: int) -> None:
    sentences = read_sentences(text, passages)
    assert all(1 <= number <= passages for sentence in sentences for number in sentence.cited)
    letters = "".join(character for character in text if character in "ab")
    assert "".join(character for s in sentences for character in s.text if character in "ab") == letters
