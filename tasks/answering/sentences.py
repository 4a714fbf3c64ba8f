"""The sentences of a passage, and the words that carry a text's meaning."""

import re
from collections.abc import Iterator
from functools import cache, lru_cache

from markdown_it import MarkdownIt
from markdown_it.token import Token
from sentencex import segment

WORD = re.compile(r"\w+(?:[.,]\d+)*")
REFERENCE = re.compile(r"\s*\[\d+(?:\s*,\s*\d+)*\]")
"""A source's own notes, which would pass for citations."""
TAG = re.compile(r"<[^>]+>")
STEM = 5
"""Letters kept of a word. Cutting words off stands for stemming, and needs no rules for each language."""
STOP_WORDS = frozenset(
    WORD.findall(
        "a an and are as at be been by can could did do does for from had has have how i if in into is it its me my of "
        "on or our that the their them they this to us was we were what when where which who whom whose why will with "
        "would you your"
    )
)
_REMEMBERED = 4096


@lru_cache(_REMEMBERED)
def split(text: str, language: str = "en") -> tuple[str, ...]:
    """The sentences of a Markdown text without its marks. Headings state nothing and are left out."""
    found = (" ".join(sentence.split()) for block in _blocks(text) for sentence in segment(language, block))
    return tuple(sentence for sentence in found if WORD.search(sentence))


@lru_cache(8 * _REMEMBERED)
def content_words(text: str) -> frozenset[str]:
    """The stems of its words but for stop words; of those as well where there are no others."""
    words = WORD.findall(text.casefold())
    return frozenset(map(_stem, [word for word in words if word not in STOP_WORDS] or words))


def without_frame(text: str) -> str:
    """Without the stop words at its ends, such as those of "It is …"; as it is where it has no other words."""
    words = text.split()
    telling = [place for place, word in enumerate(words) if set(WORD.findall(word.casefold())) - STOP_WORDS]
    return " ".join(words[telling[0] : telling[-1] + 1]) if telling else text


def _stem(word: str) -> str:
    return word[:STEM] if word.isalpha() else word


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, items of lists, rows of tables with the heads of their columns, and lines of code."""
    tokens = _parser().parse(text)
    heads: list[str] = []
    cells: list[str] = []
    for before, token in zip(["", *(token.type for token in tokens)], tokens, strict=False):
        if before in ("th_open", "td_open"):
            cells.append(_plain(token))
        elif token.type == "tr_open":
            cells = []
        elif token.type == "thead_close":
            heads = cells
        elif token.type == "tr_close" and before == "td_close":
            yield ", ".join(
                f"{head}: {cell}" if head else cell for head, cell in zip(heads, cells, strict=False) if cell
            )
        elif token.type == "inline" and before != "heading_open":
            yield REFERENCE.sub("", _plain(token))
        elif token.type in ("fence", "code_block"):
            yield from token.content.splitlines()
        elif token.type == "html_block":
            yield TAG.sub(" ", token.content)


def _plain(inline: Token) -> str:
    breaks = ("softbreak", "hardbreak")
    children = [child for child in inline.children or () if child.type != "html_inline"]
    return "".join(" " if child.type in breaks else child.content for child in children)


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table")
