"""The headings of a markdown text, by a parser that knows what is code and what is not."""

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from markdown_it import MarkdownIt

MAY_HOLD_HEADING = re.compile(r"^ {0,3}(#{1,6}([ \t]|$)|=+[ \t]*$|-+[ \t]*$)", re.MULTILINE)
LINE_END = re.compile(r"\r\n?|\n")
LONGEST = 200
"""Characters. Longer "headings" are paragraphs that happen to stand above a rule."""
INLINE_MARKUP = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|\[([^\]]*)\]\[[^\]]*\]|<[^>]+>|\{#[\w-]+\}|[*`]|\\(?=\W)")


@dataclass(frozen=True, slots=True)
class Heading:
    """One heading; `text[start:end]` is the whole of it, underline included."""

    level: int
    title: str
    """The words alone, without markup."""
    start: int
    end: int


def find_headings(text: str) -> list[Heading]:
    """The headings of a text in order, those inside lists and quotes left out."""
    if not MAY_HOLD_HEADING.search(text):
        return []  # parsing a long table or log for nothing would cost seconds
    lines = [0, *(match.end() for match in LINE_END.finditer(text)), len(text)]
    tokens = _block_parser().parse(text)
    return [
        Heading(int(opening.tag[1]), _words(inline.content), lines[opening.map[0]], lines[opening.map[1]])
        for opening, inline in pairwise(tokens)
        if opening.type == "heading_open" and opening.level == 0 and opening.map
        if len(inline.content) <= LONGEST
    ]


def _words(heading: str) -> str:
    return " ".join(INLINE_MARKUP.sub(lambda match: match[1] or match[2] or "", heading).split())


@cache
def _block_parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table").disable(["inline", "text_join"])
