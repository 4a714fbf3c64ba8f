"""Golden queries: what people ask, and the documents or passages that answer it. One JSON object a line."""

import json
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import ConfigDict, Field, TypeAdapter

from tasks.config.settings import find_path
from tasks.errors import ConfigError
from tasks.evaluation.lines import SHOWN, Text, bad_lines, fit, read_lines, read_object

GOLDEN_FILE = "golden file"


@dataclass(frozen=True, slots=True)
class GoldenQuery:
    """A query with its known answers."""

    query: Text
    relevant: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Ids of documents (``handbook/leave.md``) or of passages (``handbook/leave.md#3``), equally relevant."""
    answers: tuple[Text, ...] = ()
    """Short answers, each of which is right by itself; without any, an answer is right that cites what is relevant."""
    id: Text = ""
    """Pairs the scores of two versions; made from query and tenant where the file gives none."""
    tenant: Text | None = None
    """Search as this tenant; without it, over everything."""
    slice: Text | None = None
    """Group that is also scored on its own, such as ``howto``."""
    origin: Literal["person", "drafted"] = "person"
    """``drafted`` until a person has read and edited it."""
    note: str | None = None
    line: int = 0
    """Line in the golden file, for messages; 0 where there is none."""

    __pydantic_config__ = ConfigDict(extra="forbid")


_KEYS = [field.name for field in fields(GoldenQuery) if field.name != "line"]
_LINE = TypeAdapter(GoldenQuery)


class DraftSource(Protocol):
    """What drafting reads of a passage; `tasks.records.Passage` fits."""

    @property
    def document(self) -> str: ...
    @property
    def title(self) -> str | None: ...
    @property
    def heading(self) -> tuple[str, ...]: ...
    @property
    def text(self) -> str: ...
    @property
    def tenant(self) -> str | None: ...


def load_golden(path: Path | str) -> list[GoldenQuery]:
    """The golden queries of a jsonl file, in its order.

    Raises:
        ConfigError: the file cannot be read, is empty, or has bad or repeated lines; up to ten are named.
    """
    queries, problems = read_lines(find_path(path), GOLDEN_FILE, _parse_line)
    problems |= _repeated(queries)
    if problems:
        raise ConfigError(bad_lines(path, GOLDEN_FILE, sorted(problems.items()), len(problems)))
    if not queries:
        raise ConfigError(
            f"golden file {path} is empty: write one JSON object a line, "
            'such as {"query": "how do I reset my password", "relevant": ["docs/password.md"]}'
        )
    return queries


def check_known(queries: Sequence[GoldenQuery], known_documents: Collection[str], path: Path | str) -> None:
    """Every relevant document, or the document of a relevant passage, is one that the sources hold.

    Raises:
        ConfigError: with the lines that name unknown documents, and what they may have meant.
    """
    known = set(known_documents)
    unknown = [
        (query.line, wanted)
        for query in queries
        for wanted in query.relevant
        if wanted not in known and document_of(wanted) not in known
    ]
    if unknown:
        # The search for near matches is slow over many documents, so only what is shown is looked up.
        shown = [(line, f"unknown document {wanted!r}{_hint(wanted, known)}") for line, wanted in unknown[:SHOWN]]
        raise ConfigError(bad_lines(path, GOLDEN_FILE, shown, len(unknown)))


def document_of(relevant: str) -> str:
    """The document of a passage id (``<document>#<ordinal>``); any other id is returned as it is."""
    return re.sub(r"#\d+$", "", relevant)


def draft_golden(passages: Iterable[DraftSource], count: int = 100, seed: int = 0) -> list[GoldenQuery]:
    """Known-item queries from headings and first sentences, at most two a document, for a person to edit.

    They are easier than what people ask, because they use the document's own words: good for noticing that
    an index broke, not for choosing between two retrievers. What occurs in several documents of a tenant is
    left out, for it would have several answers. The same passages and seed give the same queries.
    """
    headings: dict[tuple[str | None, str], dict[str, None]] = {}
    sentences: dict[tuple[str | None, str], str] = {}
    for passage in passages:
        place = (passage.tenant, passage.document)
        asked = headings.setdefault(place, {})
        heading = _plain(passage.heading[-1]) if passage.heading else ""
        if _is_telling(heading):
            asked[heading] = None
        if not sentences.get(place):
            sentences[place] = _first_sentence(passage.text)

    shared = Counter((tenant, text.casefold()) for (tenant, _), texts in headings.items() for text in texts)
    shared.update((tenant, text.casefold()) for (tenant, _), text in sentences.items())
    rng = random.Random(seed)
    places = sorted(headings, key=lambda place: (place[0] or "", place[1]))
    rng.shuffle(places)
    firsts, seconds = [], []
    for tenant, document in places:
        own = [text for text in headings[tenant, document] if shared[tenant, text.casefold()] == 1]
        sentence = sentences[tenant, document]
        drafts = []
        if own:
            drafts.append(_draft(rng.choice(own), document, tenant, "heading"))
        if sentence and shared[tenant, sentence.casefold()] == 1:
            drafts.append(_draft(sentence, document, tenant, "first sentence"))
        firsts += drafts[:1]
        seconds += drafts[1:]
    return (firsts + seconds)[:count]


def write_golden(path: Path | str, queries: Iterable[GoldenQuery]) -> None:
    """Writes a golden file, and never over one that is there: a person may have edited it.

    Raises:
        ConfigError: the file exists already or cannot be written.
    """
    try:
        with Path(path).open("x", encoding="utf-8") as file:
            for query in queries:
                values = {key: getattr(query, key) for key in _KEYS}
                kept = {key: value for key, value in values.items() if value not in (None, "", ())}
                file.write(json.dumps(kept, ensure_ascii=False) + "\n")
    except FileExistsError as error:
        raise ConfigError(f"{path} exists already and may hold edits: name another file or move it away") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from error


def _parse_line(line: str, number: int) -> GoldenQuery:
    raw = read_object(line, _KEYS, "`query` and `relevant`")
    if "id" not in raw:
        raw["id"] = _make_id(raw.get("query"), raw.get("tenant"))
    return fit(_LINE, raw | {"line": number})


def _make_id(query: object, tenant: object) -> str:
    return "q-" + sha256(json.dumps([query, tenant]).encode()).hexdigest()[:12]


def _repeated(queries: Sequence[GoldenQuery]) -> dict[int, str]:
    """By line: an id that stands twice could not be paired, a query asked twice would count double."""
    problems = {}
    ids: dict[str, int] = {}
    asked: dict[tuple[str, str | None], int] = {}
    for query in queries:
        first = asked.setdefault((query.query.casefold(), query.tenant), query.line)
        same_id = ids.setdefault(query.id, query.line)
        if first != query.line:
            problems[query.line] = f"the same query as line {first}; merge their `relevant`"
        elif same_id != query.line:
            problems[query.line] = f"the id {query.id!r} stands on line {same_id} already"
    return problems


def _hint(wanted: str, known: Collection[str]) -> str:
    # A file that moved keeps its name, and comparing whole ids takes seconds with many documents.
    by_name: dict[str, str] = {}
    for document in sorted(known):
        by_name.setdefault(document.rpartition("/")[2], document)
    near = get_close_matches(document_of(wanted).rpartition("/")[2], by_name, n=1, cutoff=0.75)
    return f" (did you mean {by_name[near[0]]!r}?)" if near else ""


# One word alone is left out by its length already.
_TRIVIAL = {
    "before you begin",
    "further reading",
    "getting started",
    "introduction",
    "learn more",
    "next steps",
}
_TRIVIAL |= {"prerequisites", "related pages", "requirements", "see also", "table of contents", "what's next"}


def _is_telling(heading: str) -> bool:
    words = heading.casefold().strip(" :.?!")
    return (len(words.split()) > 1 or len(words) >= 12) and words not in _TRIVIAL


_NOT_PROSE = re.compile(r"\s*(#|\||[-*+] |\d+\. |>|<|\{|!\[|---)")
_MARKS = re.compile(r"<[^>]+>|\s*\{[#.:%][^}]*\}|\\|(?<!\w)[*_`]+|[*_`]+(?!\w)")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)\s")


def _plain(markdown: str) -> str:
    linked = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", markdown)
    return " ".join(_MARKS.sub("", linked).split())


def _first_sentence(text: str) -> str:
    """The first sentence of the prose, without markdown marks; empty if it has not 5 to 30 words."""
    in_code = False
    prose: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            in_code = not in_code
        elif not line.strip():
            if prose:
                break
        elif not in_code and not _NOT_PROSE.match(line):
            prose.append(line)
    sentence = _SENTENCE_END.split(_plain(" ".join(prose)))[0].strip()
    return sentence if 5 <= len(sentence.split()) <= 30 and not sentence[0].islower() else ""


def _draft(query: str, document: str, tenant: str | None, made_from: str) -> GoldenQuery:
    return GoldenQuery(
        query=query,
        relevant=(document,),
        id=_make_id(query, tenant),
        tenant=tenant,
        slice=made_from,
        origin="drafted",
        note=f"Drafted from the document's {made_from}: put it in a user's words, then set origin to person.",
    )
