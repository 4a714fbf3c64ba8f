"""Passages: a document cut at its own seams, counted in the embedder's own tokens.

Sections (a heading with what follows it) that fit together become one passage. One that is too long is cut by
semantic-text-splitter at paragraphs, then sentences, then words, tables and code whole where they fit.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from semantic_text_splitter import MarkdownSplitter
from tokenizers import Tokenizer

from tasks.documents.headings import Heading, find_headings
from tasks.errors import EmbedderError, ParseError
from tasks.records import Chunk

if TYPE_CHECKING:  # a worker process that only cuts text need not load the configuration's models
    from tasks.config.index import ChunkingConfig

CHUNKER_VERSION = f"1 semantic-text-splitter {version('semantic-text-splitter')}"
"""Part of every document's recipe: passages cut by another version are cut again."""

LONGEST_LINE = 1_000_000
"""Characters. A longer line is data, and no seam would be found in it for minutes."""
WORD = re.compile(r"\s*\S+")
CONTEXT = 300
"""Most characters of title and headings that are embedded with a passage."""


@dataclass(frozen=True, slots=True)
class Section:
    """``text[start:end]``, of which ``text[start:body]`` are headings (none in a text without them)."""

    start: int
    body: int
    end: int
    level: int
    """Of its first heading; 0 for what stands before every heading."""
    above: tuple[str, ...]
    """Headings over the section."""
    inside: tuple[str, ...]
    """Headings over its body, its own included."""


class TokenCount(dict[str, int]):
    """Word with the white space before it → tokens.

    A splitter counts every stretch of text many times over, and adding up remembered words is many times as fast
    as the tokenizer. It is exact where tokens do not cross white space, and an estimate elsewhere.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __missing__(self, word: str) -> int:
        if len(self) > 200_000:
            self.clear()
        self[word] = count = len(self.tokenizer.encode(word, add_special_tokens=False).ids)
        return count

    def estimate(self, text: str) -> int:
        return sum(map(self.__getitem__, WORD.findall(text)))

    def exact(self, texts: list[str]) -> list[int]:
        return [len(found.ids) for found in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


class Chunker:
    """Cuts texts into passages of at most `max_tokens` tokens."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, overlap_tokens: int) -> None:
        self.tokens = TokenCount(tokenizer)
        self.max_tokens = max_tokens
        self.overlap_tokens = overlap_tokens
        self.exact_splitter = MarkdownSplitter.from_huggingface_tokenizer(tokenizer, max_tokens)

    def __call__(self, text: str) -> list[Chunk]:
        """The passages of a text in order, trimmed of white space; all but white space is in one of them.

        Raises `ParseError` for a line that is longer than any prose.
        """
        longest = max(map(len, text.split("\n")))
        if longest > LONGEST_LINE:
            raise ParseError(f"has a line of {longest:,} characters: data, not text to be searched")
        chunks = [chunk for section in self._packed(text) for chunk in self._cut(text, section)]
        counts = self.tokens.exact([chunk.text for chunk in chunks])
        kept = (
            [chunk] if count <= self.max_tokens else self._recut(chunk)
            for chunk, count in zip(chunks, counts, strict=True)
        )
        return [chunk for some in kept for chunk in some]

    def _packed(self, text: str) -> Iterator[Section]:
        """Neighbours joined while they fit, never across a heading of higher rank than they began with."""
        current: Section | None = None
        for section in _sections(text):
            if current is None:
                current = section
            elif section.level >= current.level and self._fits(text[current.start : section.end]):
                current = replace(current, end=section.end, level=current.level or section.level)
            else:
                yield current
                current = section
        if current:
            yield current

    def _cut(self, text: str, section: Section) -> list[Chunk]:
        whole = _chunk(text, section.start, section.end, section.above)
        if self._fits(whole.text):
            return [whole] if whole.text else []
        # The headings go with the first piece, so room is left for them.
        lead = self.tokens.estimate(text[section.start : section.body])
        if lead > self.max_tokens // 2:
            section, lead = replace(section, body=section.start), 0
        spans = [
            (section.body + start, section.body + end)
            for start, end in self._pieces(text[section.body : section.end], self.max_tokens - lead)
        ]
        first = _chunk(text, section.start, spans[0][1], section.above)
        return [first, *(_chunk(text, start, end, section.inside) for start, end in spans[1:])]

    def _pieces(self, text: str, capacity: int) -> list[tuple[int, int]]:
        """Spans of at most `capacity` tokens. A lead-in or the head of a table stays with what follows it."""
        spans = self._split(text, capacity)
        little = capacity // 8
        if all(self.tokens.estimate(text[start:end]) > little for start, end in spans[:-1]):
            return spans
        joined: list[tuple[int, int]] = []
        for start, end in self._split(text, capacity - little):  # so that a little more fits in each
            if joined and self.tokens.estimate(text[slice(*joined[-1])]) <= little:
                start = joined.pop()[0]
            joined.append((start, end))
        return joined

    def _split(self, text: str, capacity: int) -> list[tuple[int, int]]:
        overlap = min(self.overlap_tokens, capacity - 1)
        splitter = MarkdownSplitter.from_callback(self.tokens.estimate, capacity, overlap)
        return [(start, start + len(piece)) for start, piece in splitter.chunk_indices(text)]

    def _recut(self, chunk: Chunk) -> list[Chunk]:
        """The pieces of a passage whose tokens were underestimated."""
        pieces = self.exact_splitter.chunk_indices(chunk.text)
        return [
            Chunk(piece, chunk.start + offset, chunk.start + offset + len(piece), chunk.heading)
            for offset, piece in pieces
        ]

    def _fits(self, text: str) -> bool:
        # No token stands for more than a few characters, so a very long text need not be counted.
        return len(text) < 50 * self.max_tokens and self.tokens.estimate(text) <= self.max_tokens


def make_chunker(max_tokens: int, overlap_tokens: int, tokenizer_file: Path) -> Callable[[str], list[Chunk]]:
    """A function from text to passages of at most `max_tokens` tokens of this tokenizer.

    `tokenizer_file` is a Hugging Face ``tokenizer.json``; special tokens are not counted.
    """
    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # the library raises bare Exception
        raise EmbedderError(f"cannot load the tokenizer {tokenizer_file}: {error}") from error
    # Files from sentence-transformers carry both, and every count would be the padded length.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Chunker(tokenizer, max_tokens, overlap_tokens)


def embedding_text(chunk: Chunk, title: str | None, config: "ChunkingConfig") -> str:
    """What is embedded for a passage: its document's title and headings, then the passage."""
    if not config.heading_context:
        return chunk.text
    names = [title] if title and title not in chunk.heading else []
    context = " > ".join([*names, *chunk.heading])[:CONTEXT]
    return f"{context}\n\n{chunk.text}" if context else chunk.text


def _sections(text: str) -> list[Section]:
    """The text cut at its headings; a heading without a body belongs to the section that follows."""
    headings = find_headings(text)
    ends = [heading.start for heading in headings] + [len(text)]
    sections = [Section(0, 0, ends[0], 0, (), ())] if text[: ends[0]].strip() else []
    path: list[Heading] = []
    bare = False
    for heading, end in zip(headings, ends[1:], strict=True):
        path = [upper for upper in path if upper.level < heading.level]
        above = tuple(upper.title for upper in path if upper.title)
        path.append(heading)
        inside = tuple(upper.title for upper in path if upper.title)
        if bare:
            sections[-1] = replace(sections[-1], body=heading.end, end=end, inside=inside)
        else:
            sections.append(Section(heading.start, heading.end, end, heading.level, above, inside))
        bare = not text[heading.end : end].strip()
    return sections


def _chunk(text: str, start: int, end: int, heading: tuple[str, ...]) -> Chunk:
    """The passage with white space trimmed from both ends."""
    passage = text[start:end]
    start += len(passage) - len(passage.lstrip())
    passage = passage.strip()
    return Chunk(passage, start, start + len(passage), heading)
