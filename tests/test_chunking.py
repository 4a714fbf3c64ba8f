"""Passages: the laws that every text obeys, and what a reader would call well cut."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tasks.config.index import ChunkingConfig
from tasks.documents.chunking import embedding_text, make_chunker
from tasks.documents.headings import find_headings
from tasks.documents.parsing import parse
from tasks.errors import EmbedderError, ParseError
from tasks.index.embedding import packaged_folder
from tasks.records import Chunk
from tests.realdata import SHARED, needs_real_data

PAGES = SHARED / "handbook" / "pages"


TOKENIZER = packaged_folder() / "tokenizer.json"
CHUNK_30 = make_chunker(30, 6, TOKENIZER)
CHUNK_200 = make_chunker(200, 20, TOKENIZER)


EXACT = Tokenizer.from_file(str(TOKENIZER))
EXACT.no_truncation()
EXACT.no_padding()


def count(text: str) -> int:
    return len(EXACT.encode(text, add_special_tokens=False).ids)


def check_laws(text: str, chunks: list[Chunk], max_tokens: int) -> None:
    covered = bytearray(len(text))
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text == chunk.text.strip() != ""
        assert count(chunk.text) <= max_tokens
        covered[chunk.start : chunk.end] = b"\1" * (chunk.end - chunk.start)
    assert all(covered[place] or letter.isspace() for place, letter in enumerate(text))
    assert [chunk.start for chunk in chunks] == sorted(chunk.start for chunk in chunks)


MARKDOWN = st.lists(
    st.one_of(
        st.text(max_size=60),
        st.sampled_from(["# One", "## Two", "###### Six", "Under\n=====", "```\n# code\n```", "| a | b |\n|--|--|"]),
        st.sampled_from(["- item\n  - inner", "> # quoted", "\r\n", "\u3000", "--", "word " * 70, "日本語" * 40]),
    ),
    max_size=12,
).map("\n\n".join)


@given(MARKDOWN)
@settings(max_examples=150, deadline=None)
def test_every_text_is_covered_by_passages_that_fit_and_lie_where_they_say(text: str) -> None:
    chunks = CHUNK_30(text)
    check_laws(text, chunks, 30)
    assert CHUNK_30(text) == chunks


def test_the_text_of_nothing_has_no_passages() -> None:
    assert CHUNK_200("") == []
    assert CHUNK_200(" \n\t\n ") == []


def test_sections_that_fit_together_become_one_passage() -> None:
    (chunk,) = CHUNK_200("# Leave\n\nAsk early.\n\n## Sick leave\n\nAsk late.\n")
    assert chunk.text == "# Leave\n\nAsk early.\n\n## Sick leave\n\nAsk late."
    assert chunk.heading == ()


def test_a_passage_never_runs_on_into_a_heading_of_higher_rank() -> None:
    first, second = CHUNK_200("## Sick leave\n\nAsk late.\n\n# Travel\n\nBook early.\n")
    assert first.text.endswith("Ask late.")
    assert second.text == "# Travel\n\nBook early."


def test_each_passage_knows_the_headings_above_it() -> None:
    body = "\n\n".join(f"Rule {number} says that people rest on day {number}." for number in range(12))
    chunks = CHUNK_30(f"# Leave\n\nIntro.\n\n## Rest days\n\n{body}\n\n# Travel\n\nBook early.")
    assert chunks[0].heading == ()
    assert chunks[1].text.startswith("## Rest days\n\nRule 0")
    assert chunks[1].heading == ("Leave",)
    assert chunks[2].heading == ("Leave", "Rest days")
    assert chunks[-1].heading == ()


def test_a_heading_stays_with_the_text_under_it() -> None:
    chunks = CHUNK_30("# A heading\n\n## Another heading\n\n" + "Some words that go on and on. " * 20)
    assert chunks[0].text.startswith("# A heading\n\n## Another heading\n\nSome words")
    assert chunks[1].heading == ("A heading", "Another heading")


def test_a_lead_in_stays_with_the_list_it_introduces() -> None:
    items = "\n".join(f"  - Point {number} of the long list, with words" for number in range(8))
    chunks = CHUNK_30(f"A first paragraph of quite some words that fills its passage well enough.\n\n- Note:\n{items}")
    introduced = [chunk.text for chunk in chunks if "- Note:" in chunk.text]
    assert introduced
    assert all("Point 0" in text for text in introduced)


def test_neighbouring_passages_of_a_long_section_overlap() -> None:
    text = " ".join(f"Sentence {number} is short." for number in range(30))
    chunks = CHUNK_30(text)
    assert all(left.end > right.start for left, right in pairwise(chunks))
    assert all(chunk.text.startswith("Sentence") for chunk in chunks)


def test_a_table_and_a_code_block_that_fit_are_not_cut() -> None:
    table = "| day | rule |\n| --- | --- |\n| Monday | work |\n| Friday | rest |"
    code = "```\nfor day in week:\n    rest(day)\n\nwork()\n```"
    filler = "Words that fill a passage almost to its end, and then a few more."
    texts = [chunk.text for chunk in CHUNK_30(f"{filler}\n\n{table}\n\n{filler}\n\n{code}\n\n{filler}")]
    assert any(table in text for text in texts)
    assert any(code in text for text in texts)


def test_headings_in_code_in_lists_and_in_quotes_are_not_headings() -> None:
    text = "# Real *one*\n\n```\n# code\n```\n\n- # item\n\n> # quote\n\nAlso [real](x)\n====\n\n#hashtag"
    assert [(heading.level, heading.title) for heading in find_headings(text)] == [(1, "Real one"), (1, "Also real")]
    assert all(text[h.start : h.end].strip().startswith(("# Real", "Also")) for h in find_headings(text))


def test_a_line_no_person_wrote_is_refused_at_once() -> None:
    with pytest.raises(ParseError, match="a line of 2,000,000 characters"):
        CHUNK_200("a " * 1_000_000)


def test_a_missing_tokenizer_is_named() -> None:
    with pytest.raises(EmbedderError, match=r"nowhere\.json"):
        make_chunker(200, 20, Path("nowhere.json"))


def test_a_tokenizer_whose_tokens_cross_spaces_keeps_the_limit(tmp_path: Path) -> None:
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(["a b c  d\n\ne f"] * 9, trainers.BpeTrainer(initial_alphabet=alphabet))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = "\n\n\n".join(f"# {n}\n\n" + " a   b c\t\td é f 日本 " * 15 for n in range(4))
    chunks = make_chunker(24, 4, tmp_path / "tokenizer.json")(text)
    assert max(len(tokenizer.encode(chunk.text).ids) for chunk in chunks) <= 24
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)


def test_the_embedded_text_carries_title_and_headings_once() -> None:
    config = ChunkingConfig()
    chunk = Chunk("Ask early.", 0, 10, ("Handbook", "Leave"))
    assert embedding_text(chunk, "Handbook", config) == "Handbook > Leave\n\nAsk early."
    assert embedding_text(chunk, "Rules", config) == "Rules > Handbook > Leave\n\nAsk early."
    assert embedding_text(Chunk("Ask early.", 0, 10), None, config) == "Ask early."
    assert embedding_text(chunk, "Rules", ChunkingConfig(heading_context=False)) == "Ask early."


@pytest.mark.realdata
@needs_real_data
def test_the_handbook_is_cut_by_the_laws_and_without_scraps() -> None:
    passages = 0
    scraps = 0
    for path in sorted(PAGES.rglob("*.md"))[::4]:
        text = parse(path.name, path.read_bytes()).text
        chunks = CHUNK_200(text)
        check_laws(text, chunks, 200)
        passages += len(chunks)
        scraps += sum(count(chunk.text) < 10 for chunk in chunks if len(chunks) > 1)
    assert passages > 500
    assert scraps < passages * 0.005
