"""Answers without a language model: sentences of a passage, what they cover of a question, and which are quoted."""

import re
from math import log

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.answering.extractive import ExtractiveGenerator, weigh
from tasks.answering.sentences import content_words, split
from tests.passages import passage

TEA = passage("Green tea is steeped for two minutes. It is served hot.")
BRIDGE = passage("The bridge carries seven tonnes. It was built in 1910.")
TEXTS = st.lists(st.text(alphabet="ab .!\n#*[]1|`-<>", max_size=40), max_size=4)


def answer(question: str, *texts: str, sentences: int = 1) -> str:
    return ExtractiveGenerator(sentences).answer(question, [passage(text) for text in texts], []).text


# Sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            "Dr. Smith left at 5 p.m. on Monday. He took the ferry.",
            ("Dr. Smith left at 5 p.m. on Monday.", "He took the ferry."),
        ),
        ("# Tea\n\nSteep *green* tea\nfor **two** minutes.", ("Steep green tea for two minutes.",)),
        ("See [the map](https://example.org/map). Then `run`.", ("See the map.", "Then run.")),
        ("- First item\n- Second item", ("First item", "Second item")),
        ("| day | open |\n| --- | --- |\n| Monday | nine |", ("day: Monday, open: nine",)),
        ("```\ntandem up\n```", ("tandem up",)),
        ("<p>Open on Monday.</p>", ("Open on Monday.",)),
        ("The bridge is old[3] and narrow [4, 5].", ("The bridge is old and narrow.",)),
        ("", ()),
        ("# Only a heading", ()),
    ],
)
def test_a_text_is_split_into_sentences_without_marks(text: str, sentences: tuple[str, ...]) -> None:
    assert split(text) == sentences


def test_words_are_compared_by_their_first_letters_and_numbers_whole() -> None:
    assert content_words("How were the Bridges renewed in 191000?") == {"bridg", "renew", "191000"}
    assert content_words("Renewal of a bridge") == {"renew", "bridg"}


def test_stop_words_count_where_there_are_no_others() -> None:
    assert content_words("Who are you?") == {"who", "are", "you"}


# What is covered


def test_rare_words_weigh_more() -> None:
    # Of two sentences, tea is in both and minutes in one: idf log(1 + 0.5/2.5) and log(1 + 1.5/1.5).
    [evidence] = weigh("tea minutes", [passage("Tea takes minutes. Tea is hot.")])
    tea, minutes = log(1.2), log(2)
    assert evidence.coverage == pytest.approx(1)
    assert [coverage for _, coverage in evidence.sentences] == pytest.approx([1, tea / (tea + minutes)])


def test_title_and_headings_count_for_the_passage_and_not_for_its_sentences() -> None:
    [evidence] = weigh("refunds", [passage("They are paid on Monday.", title="Shop", heading=("Refunds",))])
    assert evidence.coverage == 1
    assert evidence.best_sentence == 0


@given(TEXTS, st.text(alphabet="ab 1", max_size=12))
@example(["<a.<1"], "a")
def test_a_sentence_covers_no_more_than_its_passage_and_that_no_more_than_everything(
    texts: list[str], question: str
) -> None:
    for evidence in weigh(question, [passage(text) for text in texts]):
        assert 0 <= evidence.best_sentence <= evidence.coverage + 1e-9
        assert evidence.coverage <= 1 + 1e-9


# Answers


def test_the_sentence_that_answers_is_quoted_with_the_number_of_its_passage() -> None:
    assert answer("how many tonnes on the bridge", TEA.text, BRIDGE.text) == "The bridge carries seven tonnes. [2]"


def test_the_better_ranked_of_two_equal_sentences_is_cited_and_it_comes_once() -> None:
    texts = "Tea is hot. It rains.", "Tea is hot. It snows."
    assert answer("is tea hot", *texts, sentences=4) == "Tea is hot. [1]"


def test_a_second_sentence_comes_only_where_it_says_something_of_the_question() -> None:
    text = "The ferry to the island leaves at nine. The ferry is blue. Books are lent."
    assert answer("when does the ferry leave", text, sentences=3) == (
        "The ferry to the island leaves at nine. [1] The ferry is blue. [1]"
    )


@pytest.mark.parametrize("texts", [(), ("",), ("# Only a heading",)])
def test_without_sentences_there_is_no_answer(texts: tuple[str, ...]) -> None:
    assert answer("tea", *texts) == ""


def test_without_any_word_in_common_the_best_ranked_passage_is_quoted() -> None:
    assert answer("whales", "Tea is hot.", "Books are lent.") == "Tea is hot. [1]"


@given(TEXTS, st.integers(1, 3))
def test_every_quotation_stands_in_the_passage_that_it_cites(texts: list[str], count: int) -> None:
    passages = [passage(text) for text in texts]
    text = ExtractiveGenerator(count).answer("a b", passages, []).text
    quoted = re.findall(r"(.+?) \[(\d+)\](?: |$)", text)
    assert len(quoted) <= count
    assert " ".join(f"{sentence} [{number}]" for sentence, number in quoted) == text
    assert all(sentence in split(passages[int(number) - 1].text) for sentence, number in quoted)
