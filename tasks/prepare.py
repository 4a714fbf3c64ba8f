"""Parses, chunks and embeds what changed; what was ever converted or embedded before is taken from the caches.

Nothing is written to the index here. The new rows are staged in one file, so that the table changes in one commit
once everything is ready, and memory holds no more than a few batches however large the night is.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from prefect import task

from tasks.compare import Work
from tasks.config.index import ReindexConfig
from tasks.config.settings import find_home
from tasks.converted import keep_parsed, load_parsed, open_converted, parsed_key
from tasks.documents.changes import Recipe
from tasks.documents.chunking import embedding_text
from tasks.documents.metadata import describe, own_title
from tasks.documents.preparing import PreparedDocument, PrepareJob, Preparer
from tasks.documents.sources import Reader, open_reader
from tasks.errors import ParseError, SourceError
from tasks.index.cache import ContentCache, VectorCache, embed_once
from tasks.index.embedding import Embedder, load_embedder
from tasks.index.store import chunk_schema
from tasks.progress import progress
from tasks.records import Chunk, Listing, Prepared, Problem, SourceFile
from tasks.telling import tell

PASSAGES_AT_ONCE = 1024
"""Passages embedded and staged together: enough to form batches of like length, few enough to hold in memory."""


@dataclass
class Tally:
    """What has been done so far."""

    rewritten: list[str] = field(default_factory=list)
    failed: list[Problem] = field(default_factory=list)
    stale: list[Problem] = field(default_factory=list)
    rows: int = 0
    embedded: int = 0
    reused: int = 0
    parsed: int = 0


@task(name="prepare", task_run_name="prepare {config.name}")
def prepare(config: ReindexConfig, listings: Sequence[Listing], work: Work) -> Prepared:
    """Stage the rows of every document that is new, changed or moved."""
    home = find_home()
    files = work.changes.to_prepare
    staged = home.data / "staging" / f"{work.table}.arrow"
    staged.parent.mkdir(parents=True, exist_ok=True)
    embedder = load_embedder(config.embedder, home)
    schema = chunk_schema(embedder.dimension)
    tally = Tally()
    with ExitStack() as stack:
        texts = stack.enter_context(open_converted(home))
        vectors = stack.enter_context(VectorCache(home.cache / "vectors", embedder.fingerprint, embedder.dimension))
        readers = {
            source.name: stack.enter_context(open_reader(source, home, listing))
            for source in config.sources
            for listing in listings
            if listing.source == source.name
        }
        preparer = stack.enter_context(Preparer(config.parsing, config.chunking, embedder.tokenizer_file))
        advance = stack.enter_context(progress("prepare", config.name, len(files)))
        stream = stack.enter_context(pa.ipc.new_stream(stack.enter_context(pa.OSFile(str(staged), "wb")), schema))
        prepared = preparer.prepare(_jobs(files, texts, readers, tally))
        good = _remember(prepared, texts, work, tally, advance)
        for batch in _batches(good):
            rows = [row for document in batch for row in _rows(document, config, work.recipes)]
            _add_vectors(rows, embedder, vectors, tally)
            stream.write_table(pa.Table.from_pylist(rows, schema))
            tally.rows += len(rows)
        tally.failed += work.changes.unlisted
        placeholders = _set_aside(work, tally)
        stream.write_table(pa.Table.from_pylist(placeholders, schema))
    tell(f"{tally.parsed:,} documents converted, {tally.embedded:,} passages embedded, {tally.reused:,} known already")
    return Prepared(
        staged=str(staged),
        rows=tally.rows + len(placeholders),
        dimension=embedder.dimension,
        rewritten=tuple(tally.rewritten),
        failed=tuple(tally.failed),
        stale=tuple(tally.stale),
        embedded=tally.embedded,
        reused=tally.reused,
        parsed=tally.parsed,
    )


def _jobs(
    files: Sequence[SourceFile], texts: ContentCache, readers: Mapping[str, Reader], tally: Tally
) -> Iterator[PrepareJob]:
    """Known texts are only cut again; other files are read here, while earlier ones are parsed and embedded."""
    for file in files:
        key = parsed_key(file)
        if known := load_parsed(texts, [key]):
            yield PrepareJob(file, parsed=known[key])
            continue
        try:
            yield PrepareJob(file, data=readers[file.source].read(file))
        except SourceError as error:
            tally.failed.append(Problem(file.document, str(error)))
        except ParseError as error:
            tally.failed.append(Problem(file.document, str(error), file.revision))
        else:
            tally.parsed += 1


def _remember(
    prepared: Iterable[PreparedDocument | Problem],
    texts: ContentCache,
    work: Work,
    tally: Tally,
    advance: Any,
) -> Iterator[PreparedDocument]:
    """Keep the converted text of what came through, and note what did not."""
    for result in prepared:
        advance(1)
        if isinstance(result, Problem):
            tally.failed.append(result)
            continue
        keep_parsed(texts, parsed_key(result.file), result.parsed)
        tally.rewritten.append(result.file.document)
        yield result


def _batches(documents: Iterable[PreparedDocument]) -> Iterator[list[PreparedDocument]]:
    batch: list[PreparedDocument] = []
    passages = 0
    for document in documents:
        batch.append(document)
        passages += len(document.chunks)
        if passages >= PASSAGES_AT_ONCE:
            yield batch
            batch, passages = [], 0
    if batch:
        yield batch


def _rows(document: PreparedDocument, config: ReindexConfig, recipes: Mapping[str, Recipe]) -> Iterator[dict[str, Any]]:
    """A row a passage, the vector still missing; a single placeholder for a document without text."""
    file = document.file
    source = next(source for source in config.sources if source.name == file.source)
    known = describe(source, file, document.parsed)
    shared = _file_columns(file, recipes[file.source].good) | known | {"parsed_key": parsed_key(file)}
    if not document.chunks:
        yield shared | _no_passage(file.document, None)
    # the file's name stays out, so that a renamed document is not embedded again
    title = own_title(source, document.parsed)
    for ordinal, chunk in enumerate(document.chunks):
        yield shared | _passage(chunk, ordinal, file.document, title, config)


def _file_columns(file: SourceFile, recipe: str) -> dict[str, Any]:
    return {
        "document": file.document,
        "source": file.source,
        "path": file.path,
        "revision": file.revision,
        "recipe": recipe,
        "stale": False,
    }


def _passage(chunk: Chunk, ordinal: int, document: str, title: str | None, config: ReindexConfig) -> dict[str, Any]:
    embedded = embedding_text(chunk, title, config.chunking)
    return {
        "id": f"{document}#{ordinal}",
        "ordinal": ordinal,
        "text": chunk.text,
        "heading": chunk.heading,
        "start": chunk.start,
        "end": chunk.end,
        "embedding_key": hashlib.sha256(embedded.encode()).hexdigest(),
        "embedded": embedded,
    }


def _no_passage(document: str, reason: str | None) -> dict[str, Any]:
    return {"id": f"{document}#-1", "ordinal": -1, "reason": reason, "heading": []}


def _add_vectors(rows: list[dict[str, Any]], embedder: Embedder, vectors: VectorCache, tally: Tally) -> None:
    """Fill in the vectors, embedding only what was never embedded before."""
    passages = [row for row in rows if row["ordinal"] >= 0]
    texts = [row.pop("embedded") for row in passages]
    found, embedded, reused = embed_once(texts, [row["embedding_key"] for row in passages], embedder, vectors)
    for row, vector in zip(passages, found, strict=True):
        row["vector"] = vector
    tally.embedded += embedded
    tally.reused += reused


def _set_aside(work: Work, tally: Tally) -> list[dict[str, Any]]:
    """Files that failed: those with passages in the index keep them as stale, the others get a placeholder."""
    placeholders = []
    for problem in tally.failed:
        state = work.states.get(problem.document)
        if state and state.passages:
            tally.stale.append(problem)
            continue
        tally.rewritten.append(problem.document)
        source, _, path = problem.document.partition("/")
        file = SourceFile(problem.document, source, path, problem.revision, 0)
        columns = _file_columns(file, work.recipes[source].failed)
        placeholders.append(columns | _no_passage(problem.document, problem.reason))
    return placeholders
