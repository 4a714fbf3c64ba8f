"""The LanceDB table of one index: its rows, versions and tags, and the indices that make it fast to search.

What the index holds is read from the table itself. Every write is one commit, so that a killed run leaves the
table as it was before or as it is after, and the next run goes on from there.
"""

import errno
import math
import os
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.config.index import SearchConfig
from tasks.errors import StoreError
from tasks.records import DocumentState

if TYPE_CHECKING:
    from lancedb.query import MatchQuery

FORMAT = 1
"""Written into the table; raised when an older Tandem could no longer read it."""

_MAINTAINED = "tandem-maintained"
"""The tag on the version whose indices were last brought up to date; a deletion shows nowhere else."""

_STATE_COLUMNS = ["document", "revision", "recipe", "stale", "reason"]
_INDEXED_COLUMNS = ("id", "document", "tenant")
_TEXT_INDEX, _VECTOR_INDEX = "text_idx", "vector_idx"
_MANY_FRAGMENTS = 32
_MUCH_DELETED = 0.5
"""What is compacted is written again beside what older versions keep: at 0.2, up to 30 % more over 100 nights."""
_LARGE_FRAGMENT = 0.25
"""Of all rows: a fragment as large as that is written again only where much of it is deleted."""
_SAMPLED_ROWS = 5
_SAME = 1e-3
"""Cosine distance below which two vectors are one, rounding aside."""


@dataclass(frozen=True, slots=True)
class IndexHealth:
    """What maintenance left behind."""

    version: int
    rows: int
    passages: int
    fragments: int
    vector_index: bool
    """False where the passages are few enough to be searched exactly."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By step; empty if everything was up to date already."""


def chunk_schema(dimension: int) -> pa.Schema:
    """Columns of one row a passage, with vectors of that many float32."""
    text, texts = pa.string(), pa.list_(pa.string())
    return pa.schema(
        [
            ("id", text),
            ("document", text),
            ("ordinal", pa.int32()),
            ("text", text),
            ("heading", texts),
            ("start", pa.int32()),
            ("end", pa.int32()),
            ("title", text),
            ("source", text),
            ("path", text),
            ("tenant", text),
            ("language", text),
            ("date", pa.date32()),
            ("tags", texts),
            ("revision", text),
            ("recipe", text),
            ("parsed_key", text),
            ("embedding_key", text),
            ("stale", pa.bool_()),
            ("reason", text),
            ("vector", pa.list_(pa.float32(), dimension)),
        ],
        metadata={"tandem.format": str(FORMAT)},
    )


def quote(value: str) -> str:
    """A string as an SQL literal. Lance's SQL knows no escape but the doubled quote."""
    return "'" + value.replace("'", "''") + "'"


def match_words(text: str) -> "MatchQuery":
    """A full-text query for the words as they are; a bare string would be parsed for operators."""
    from lancedb.query import MatchQuery

    return MatchQuery(text, "text")  # type: ignore[call-arg]  # its defaults are invisible to mypy


def _connect(uri: str | Path) -> Any:
    import lancedb  # a second, for flows that open no index

    return lancedb.connect(str(uri))


class IndexStore:
    """One Lance table, at its latest version or, read-only, at an older one (`at`)."""

    def __init__(self, uri: str, name: str, table: Any, read_only: bool = False) -> None:
        self.uri = uri
        self.name = name
        self.table = table
        self.read_only = read_only

    @classmethod
    def open(cls, uri: str | Path, name: str) -> "IndexStore":
        """Open an existing table; StoreError if there is none or a newer Tandem wrote it."""
        uri = str(uri)
        with explained(f"open the table {name} in {uri}"):
            table = _connect(uri).open_table(name)
            written = int((table.schema.metadata or {}).get(b"tandem.format", b"0"))
        if written > FORMAT:
            raise StoreError(
                f"the table {name} in {uri} was written by a newer Tandem (format {written}, this one reads "
                f"up to {FORMAT}): upgrade Tandem"
            )
        if not written:
            raise StoreError(f"the table {name} in {uri} was not written by Tandem: choose another index name")
        return cls(uri, name, table)

    @classmethod
    def open_or_create(cls, uri: str | Path, name: str, dimension: int) -> "IndexStore":
        """Open the table, or make an empty one whose vectors have `dimension` entries."""
        with explained(f"create the table {name} in {uri}"):
            if not has_table(uri, name):
                _connect(uri).create_table(name, schema=chunk_schema(dimension))
        store = cls.open(uri, name)
        if store.dimension != dimension:
            raise StoreError(
                f"the table {name} in {uri} holds vectors of {store.dimension} entries, the embedder makes "
                f"{dimension}: another embedder needs a table of its own"
            )
        return store

    @property
    def dimension(self) -> int:
        return int(self.table.schema.field("vector").type.list_size)

    @property
    def version(self) -> int:
        return int(self.table.version)

    def __len__(self) -> int:
        """Number of passages; placeholder rows do not count."""
        return int(self.table.count_rows("ordinal >= 0"))

    # What is in it

    def documents(self) -> dict[str, DocumentState]:
        """State of every document, by document id."""
        with explained(f"read the documents of {self.name}"):
            rows = self.table.search().select([*_STATE_COLUMNS, "ordinal"]).limit(None).to_arrow()
        rows = rows.append_column("passage", pc.greater_equal(rows["ordinal"], 0).cast(pa.int32()))
        states = rows.group_by(_STATE_COLUMNS).aggregate([("passage", "sum")])
        columns = [states[name].to_pylist() for name in (*_STATE_COLUMNS, "passage_sum")]
        return {
            document: DocumentState(document, revision, recipe, passages, stale, reason)
            for document, revision, recipe, stale, reason, passages in zip(*columns, strict=True)
        }

    def rows(self, columns: Collection[str] | None = None, where: str | None = None) -> pa.Table:
        """The rows as an Arrow table, in no particular order."""
        query = self.table.search().limit(None)
        if columns is not None:
            query = query.select(list(columns))
        if where is not None:
            query = query.where(where)
        with explained(f"read {self.name}"):
            return query.to_arrow()

    # Writing

    def replace(self, deleted: Collection[str], batches: Iterable[pa.RecordBatch]) -> int:
        """Delete all rows of the named documents and write the new ones, in one commit; number written.

        A changed document is both named and written anew. The batches are drawn one by one while they are
        written. An error raised by them passes through and leaves the table as it was.
        """
        self._refuse_if_read_only()
        stream = _Stream(batches)
        reader = pa.RecordBatchReader.from_batches(self.table.schema, stream)
        # Placeholders have no vector. A vector with a NaN becomes null too, which `check` refuses.
        with explained(f"write to {self.name}", stream):
            if self.table.count_rows() == 0:
                self.table.add(reader, on_bad_vectors="null")
            else:
                merge = self.table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                if deleted:
                    gone = f"document IN ({', '.join(map(quote, sorted(deleted)))})"
                    merge = merge.when_not_matched_by_source_delete(gone)
                merge.execute(reader, on_bad_vectors="null")
        return stream.rows

    def mark_stale(self, document: str, revision: str, recipe: str, reason: str) -> None:
        """Keep the document's last good passages, though its bytes are now `revision` and cannot be used."""
        self.update(document, {"stale": True, "revision": revision, "recipe": recipe, "reason": reason})

    def update(self, document: str, values: dict[str, Any]) -> None:
        """Set columns of all rows of a document; text and vectors stay as they are."""
        self._refuse_if_read_only()
        with explained(f"update {document} in {self.name}"):
            self.table.update(where=f"document = {quote(document)}", values=values)

    def _refuse_if_read_only(self) -> None:
        # Lance's merge would write to the latest version from here, without a word.
        if self.read_only:
            raise StoreError(f"version {self.version} of {self.name} is open for reading only")

    # Indices

    def maintain(self, search: SearchConfig) -> IndexHealth:
        """Bring every index up to date with the rows; nothing is written if they are.

        The full-text index is rebuilt rather than extended: its statistics keep counting rows that were
        deleted, so that scores would drift from those of an index built from nothing.
        """
        self._refuse_if_read_only()
        seconds: dict[str, float] = {}
        with explained(f"bring the indices of {self.name} up to date"):
            if not self._is_maintained(search):
                with _timed(seconds, "compact"):
                    self._compact()
                with _timed(seconds, "scalar"):
                    self._index_columns()
                with _timed(seconds, "vector"):
                    self._index_vectors(search)
                with _timed(seconds, "text"):
                    self._index_text(search)
                self._point(_MAINTAINED, self.version)
            return IndexHealth(
                version=self.version,
                rows=self.table.count_rows(),
                passages=len(self),
                fragments=int(self.table.list_versions()[-1]["metadata"]["total_fragments"]),
                vector_index=self.has_vector_index,
                seconds=seconds,
            )

    def _is_maintained(self, search: SearchConfig) -> bool:
        if self.table.tags.list().get(_MAINTAINED, {}).get("version") != self.version:
            return False
        text = next(index for index in self.table.list_indices() if index.name == _TEXT_INDEX)
        wanted = len(self) >= search.exact_below
        return text.index_details["language"] == search.text_language and wanted == self.has_vector_index

    def _index_names(self) -> set[str]:
        return {index.name for index in self.table.list_indices()}

    @property
    def has_vector_index(self) -> bool:
        return _VECTOR_INDEX in self._index_names()

    def _compact(self) -> None:
        files = self.table.list_versions()[-1]["metadata"]
        rows = int(files["total_data_file_rows"])
        deleted = int(files["total_deletion_file_rows"]) / max(1, rows)
        if int(files["total_fragments"]) > _MANY_FRAGMENTS or deleted > _MUCH_DELETED:
            # LanceDB's own `optimize` would write small tables again as a whole.
            self.table.to_lance().optimize.compact_files(
                target_rows_per_fragment=math.ceil(_LARGE_FRAGMENT * rows),
                materialize_deletions_threshold=_MUCH_DELETED,
            )
            self.table.checkout_latest()

    def _index_columns(self) -> None:
        from lancedb.index import Bitmap, BTree

        for column in _INDEXED_COLUMNS:
            config = Bitmap() if column == "tenant" else BTree()
            self.table.create_index(column, config=config, replace=True)

    def _index_text(self, search: SearchConfig) -> None:
        from lancedb.index import FTS

        self.table.create_index("text", config=FTS(language=search.text_language), replace=True)

    def _index_vectors(self, search: SearchConfig) -> None:
        from lancedb.index import IvfRq

        if len(self) >= search.exact_below:
            # The default sample (256) took 15 s instead of 3 from 100,000 rows of which 1 % were deleted.
            config = IvfRq(distance_type="cosine", sample_rate=64)
            self.table.create_index("vector", config=config, replace=True)
        elif self.has_vector_index:
            self.table.drop_index(_VECTOR_INDEX)

    def check(self) -> list[str]:
        """What is wrong with this version, in sentences; none means that it may go live."""
        with explained(f"check {self.name}"):
            passages = len(self)
            if not passages:
                return [f"version {self.version} of {self.name} holds no passage"]
            return [*self._check_rows(), *self._check_indices()] or self._check_round_trip(passages)

    def _check_rows(self) -> list[str]:
        wrong = []
        if empty := self.table.count_rows("ordinal >= 0 AND (vector IS NULL OR text IS NULL)"):
            wrong.append(f"{empty} passages have no vector or no text")
        ids = self.rows(["id"])["id"]
        if twice := len(ids) - pc.count_distinct(ids).as_py():
            wrong.append(f"{twice} rows have an id that another row has too")
        return wrong

    def _check_indices(self) -> list[str]:
        unindexed = {index.name: index.num_unindexed_rows for index in self.table.list_indices()}
        wrong = [f"{rows} rows are missing from the index {name}" for name, rows in unindexed.items() if rows]
        missing = {*(f"{column}_idx" for column in _INDEXED_COLUMNS), _TEXT_INDEX} - unindexed.keys()
        return wrong + [f"the index {name} does not exist" for name in sorted(missing)]

    def _check_round_trip(self, passages: int) -> list[str]:
        places = range(0, passages, max(1, passages // _SAMPLED_ROWS))
        with ThreadPoolExecutor(len(places)) as pool:  # a search waits its turn where a busy service searches too
            return list(chain.from_iterable(pool.map(self._check_passage, places)))

    def _check_passage(self, place: int) -> list[str]:
        wrong = []
        sample = self.table.search().where("ordinal >= 0").select(["id", "text", "vector"])
        row = sample.offset(place).limit(1).to_list()[0]
        by_text = self.table.search(match_words(row["text"]), query_type="fts").select(["id", "_score"])
        found = by_text.where(f"id = {quote(row['id'])}").limit(1).to_list()
        if not found and self.table.tokenize(row["text"], index_name=_TEXT_INDEX):
            wrong.append(f"the passage {row['id']} is not found by its own text")
        near = self.table.search(row["vector"]).distance_type("cosine").refine_factor(10)
        nearest = near.select(["_distance"]).limit(1).to_list()
        if not nearest or nearest[0]["_distance"] > _SAME:
            wrong.append(f"the passage {row['id']} is not found by its own vector")
        return wrong

    # Versions

    def at(self, version: int | str) -> "IndexStore":
        """A read-only handle on a version, by number or tag; StoreError if it is gone."""
        with explained(f"open version {version} of {self.name} in {self.uri}"):
            table = _connect(self.uri).open_table(self.name)
            table.checkout(version)
        return IndexStore(self.uri, self.name, table, read_only=True)

    def exists(self, version: int | str) -> bool:
        try:
            self.at(version)
        except StoreError:
            return False
        return True

    def tags(self) -> dict[str, int]:
        """Version by tag."""
        with explained(f"read the tags of {self.name}"):
            tags = self.table.tags.list()
        return {name: tag["version"] for name, tag in tags.items() if name != _MAINTAINED}

    def tag(self, name: str, version: int) -> None:
        """Protect a version under a name; a name that exists is moved."""
        with explained(f"tag version {version} of {self.name} as {name}"):
            self._point(name, version)

    def _point(self, name: str, version: int) -> None:
        if name in self.table.tags.list():
            self.table.tags.update(name, version)
        else:
            self.table.tags.create(name, version)

    def untag(self, name: str) -> None:
        with explained(f"remove the tag {name} of {self.name}"):
            self.table.tags.delete(name)

    def superseded(self, kept: Collection[int]) -> list[int]:
        """The versions that `collect` would remove where the kept ones have tags."""
        with explained(f"read the versions of {self.name}"):
            maintained = self.table.tags.list().get(_MAINTAINED, {}).get("version")
            known = [int(one["version"]) for one in self.table.list_versions()]
        return [version for version in known if version not in {*kept, maintained, self.version}]

    @property
    def changed(self) -> float:
        """When it was last written to, in seconds since the epoch."""
        return float(self.table.list_versions()[-1]["timestamp"].timestamp())

    def collect(self, keep_tags: Collection[str]) -> int:
        """Remove all versions but the latest and the kept ones, with their tags; bytes freed on disk.

        A file that no version refers to stays until it is seven days old (Lance's limit): a younger one may belong to
        a write that another process has not committed yet, an older one was left by a killed run. StoreError, and
        nothing is removed, if a tag that is to be kept does not exist.
        """
        self._refuse_if_read_only()
        tags = self.tags()
        if missing := sorted(set(keep_tags) - set(tags)):
            raise StoreError(
                f"nothing was removed from {self.name}: {', '.join(missing)} must be kept, but the tag "
                "is gone; run `tandem doctor`"
            )
        for name in set(tags) - set(keep_tags):
            self.untag(name)
        with explained(f"remove old versions of {self.name}"):
            # LanceDB's own pruning stops at the first tag: one old champion would keep everything since.
            stats = self.table.to_lance().cleanup_old_versions(
                older_than=timedelta(0), delete_unverified=False, error_if_tagged_old_versions=False
            )
        return int(stats.bytes_removed)


class _Stream:
    """Hands batches to Lance, counting rows and keeping the error that Lance would turn into a string."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = iter(batches)
        self.rows = 0
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                self.rows += batch.num_rows
                yield batch
        except BaseException as error:
            self.error = error
            raise


def has_table(uri: str | Path, name: str) -> bool:
    """Whether the database at `uri` has a table of this name, whoever wrote it."""
    return name in _table_names(uri)


def list_tables(uri: str | Path, index: str = "") -> list[str]:
    """The names of Tandem's tables in the database at `uri`, also of those that cannot be opened.

    With an `index`, only its own, one for each embedder; no other table is opened.
    """
    names = (name for name in _table_names(uri) if index in ("", name.rpartition("-")[0]))
    return [name for name in names if not _is_foreign(uri, name)]


def list_foreign_tables(uri: str | Path) -> list[str]:
    """The names of the tables at `uri` that somebody else wrote."""
    return [name for name in _table_names(uri) if _is_foreign(uri, name)]


def _table_names(uri: str | Path) -> list[str]:
    return list(_connect(uri).list_tables().tables)


def _is_foreign(uri: str | Path, name: str) -> bool:
    """Tandem's tables are named for an index and an embedder, with a dash between, and say their format."""
    if "-" not in name:
        return True
    try:
        metadata = _connect(uri).open_table(name).schema.metadata
    except (RuntimeError, OSError, ValueError):  # damaged: whoever opens it says so
        return False
    return b"tandem.format" not in (metadata or {})


def drop_table(uri: str | Path, name: str) -> None:
    """Delete a table with all its versions."""
    with explained(f"delete the table {name} in {uri}"):
        _connect(uri).drop_table(name)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[step] = perf_counter() - start


@contextmanager
def explained(doing: str, stream: _Stream | None = None) -> Iterator[None]:
    """Turn what Lance raises into a StoreError that says what to do."""
    try:
        yield
    except (RuntimeError, OSError, ValueError) as error:
        if stream is not None and stream.error is not None:
            raise stream.error from None
        raise StoreError(f"cannot {doing}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error)
    for number, advice in (
        (errno.ENOSPC, "the disk is full; free some space and run again"),
        (errno.EACCES, "permission denied; make the folder readable and writable for this user"),
        (errno.EROFS, "the disk is mounted read-only"),
    ):
        if os.strerror(number) in text:
            return advice
    return text.splitlines()[0] if text else type(error).__name__
