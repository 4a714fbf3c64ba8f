"""Rows that are nearly the same: every pair that is similar enough is found, and no other."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.config.training import CheckConfig
from tasks.training.checks import check_similar
from tasks.training.formats import Example
from tasks.training.near import COMMON_ROWS, NearIndex, sketch_all, words_of
from tests.examples import example

LONG = "one two three four five six seven eight nine ten eleven twelve"


def shingles_of(one: Example) -> set[tuple[str, ...]]:
    words = words_of([turn for part in one.parts.values() for turn in part]).split(" ")
    return {tuple(words[n : n + 3]) for n in range(max(1, len(words) - 2))}


def similarity(one: Example, other: Example) -> float:
    mine, theirs = shingles_of(one), shingles_of(other)
    return len(mine & theirs) / len(mine | theirs)


def find(sought: Example, known: list[Example], threshold: float) -> int | None:
    *sketches, own = sketch_all([*known, sought])
    index = NearIndex(threshold)
    for sketch in sketches:
        index.add(sketch)
    return index.find(own)


def test_case_punctuation_and_spacing_make_no_difference() -> None:
    assert find(example("Where is  my CARD?!"), [example("where is my card")], 1) == 0


def test_similarity_is_that_of_sets_of_three_words() -> None:
    # 13 words with the answer give 11 shingles; another last word of the question changes 2: 9 of 13 are shared
    known = [example(LONG)]
    changed = example(LONG.replace("twelve", "thirteen"))
    assert find(changed, known, 9 / 13) == 0
    assert find(changed, known, 9 / 13 + 0.001) is None


def test_texts_shorter_than_a_shingle_and_without_words_are_compared_too() -> None:
    known = [example("a", "b"), example("?", "!")]
    assert find(example("A", "B"), known, 0.9) == 0
    assert find(example("?", "!"), known, 0.9) == 1
    assert find(example("?", "?"), known, 0.9) is None


def test_an_instruction_that_all_rows_begin_with_does_not_make_them_alike() -> None:
    rows = [example(f"{LONG} {LONG} {n} and no more", str(n)) for n in range(COMMON_ROWS + 1)]
    assert find(rows[0], rows[1:], 0.5) is None
    assert find(rows[0], rows[2:], 0.5) == 0  # as many as may be compared by what they have in common


def test_system_turns_are_left_aside() -> None:
    asked = [{"role": "user", "content": "a b c d"}, {"role": "assistant", "content": "e"}]
    rows = [Example("1", "1", {"messages": [{"role": "system", "content": text}, *asked]}) for text in (LONG, "Hi")]
    assert find(rows[0], rows[1:], 1) == 0


def test_rows_that_say_only_what_is_common_are_compared_by_it() -> None:
    rows = [example(LONG)] * (COMMON_ROWS + 5)
    assert find(rows[0], rows[1:], 0.9) == 0


ROWS = 500


def different(number: int) -> str:
    return " ".join(f"{word}{number}" for word in "abcdefgh")


@pytest.mark.parametrize("copies", [40, 100, 400])
def test_text_that_was_copied_so_often_that_it_is_common_does_not_hide_its_copies(copies: int) -> None:
    train = [example(f"{LONG} {LONG} {n}" if n < copies else different(n)) for n in range(ROWS)]
    held_out = [example(f"{LONG} {LONG} {ROWS}"), example(different(ROWS))]
    kept, [leaked, near] = check_similar(train, held_out, CheckConfig(near_duplicate=0.6))
    # 12 of 18 shingles are those of all copies
    assert kept == train[copies:]
    assert len(leaked.places) == copies
    assert len(near.places) == copies - 1


def test_questions_under_one_of_several_instructions_are_not_made_alike_by_it() -> None:
    rows = [example(f"{LONG} {LONG} task {n % 5} {different(n)}") for n in range(ROWS)]
    assert check_similar(rows[1:], rows[:1], CheckConfig(near_duplicate=0.5)) == (rows[1:], [])


def test_questions_of_four_words_under_an_instruction_of_half_of_the_rows_are_not_made_alike_by_it() -> None:
    rows = [example(different(n) if n % 2 else f"{LONG} {LONG} is it{n} that{n} now{n}") for n in range(ROWS)]
    assert check_similar(rows[1:], rows[:1], CheckConfig(near_duplicate=0.5)) == (rows[1:], [])


texts = st.lists(st.sampled_from("abcd"), min_size=1, max_size=12).map(" ".join)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=COMMON_ROWS - 1), texts, st.sampled_from([0.3, 0.5, 0.8, 0.9, 1]))
def test_the_first_similar_row_is_found_exactly_when_there_is_one(
    known: list[str], sought: str, threshold: float
) -> None:
    rows, own = [example(text) for text in known], example(sought)
    similar = [number for number, row in enumerate(rows) if similarity(row, own) >= threshold]
    assert find(own, rows, threshold) == (similar[0] if similar else None)
