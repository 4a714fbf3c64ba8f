"""Rows of any source, each with the place it came from. The places are what findings name.

Rows and lines are counted from 1. A line that is no row is a `BadRow`; a source that cannot be read at all is an error.
"""

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from tasks.config.addresses import shown
from tasks.config.settings import find_path
from tasks.errors import SourceError

HUB = "hub:"
ENDINGS = re.compile(r"\.(jsonl|ndjson|csv|parquet)(\.(gz|bz2|xz|zst))?$")
LONGEST_CELL = 1 << 27
"""Characters: the csv module's own limit of 131,072 is shorter than one long document."""


@dataclass(frozen=True, slots=True)
class Row:
    """Values by column."""

    place: str
    """``file:line`` of text files; ``file#row`` of the others."""
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """Something that cannot be used as a row."""

    place: str
    reason: str
    """Goes on a sentence that begins with how many rows there are: "is not JSON"."""


def read_rows(sources: Iterable[str], hub_split: str = "train") -> Iterator[Row | BadRow]:
    """The rows of all sources, in their order.

    Args:
        sources: files (jsonl, csv, parquet; the first two also compressed), folders with such files, folders that
            `datasets` saved, globs, fsspec URLs, or ``hub:`` with anything `datasets.load_dataset` takes:
            ``hub:owner/name``, ``hub:owner/name/configuration``, ``hub:./folder``.
        hub_split: the split to read of a data set that has several.

    Raises:
        SourceError: a source does not exist, holds no such file, or cannot be read to its end.
    """
    for source in sources:
        if source.startswith(HUB):
            yield from _read_hub(source, hub_split)
            continue
        place = source if "://" in source else str(find_path(source))
        if Path(place, "state.json").is_file() or Path(place, "dataset_dict.json").is_file():
            yield from _read_saved(place, hub_split)
        else:
            yield from _read_files(place)


def _read_hub(source: str, split: str) -> Iterator[Row]:
    from datasets import load_dataset

    path = source.removeprefix(HUB)
    owner, _, rest = path.partition("/")
    name, _, configuration = rest.partition("/")
    on_hub = configuration and not path.startswith((".", "/", "~"))
    try:
        rows = (
            load_dataset(f"{owner}/{name}", configuration, split=split) if on_hub else load_dataset(path, split=split)
        )
    except Exception as error:  # its loaders raise errors of many packages
        raise SourceError(
            f"data set {source}, split {split}: cannot be loaded ({_said(error)}); check its name, `hub_split` and the "
            "network"
        ) from error
    yield from _numbered(source, rows)


def _read_saved(source: str, split: str) -> Iterator[Row]:
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(source)
        rows = saved[split] if isinstance(saved, DatasetDict) else saved
    except Exception as error:  # as above
        raise SourceError(f"data set {source}: cannot be loaded ({_said(error)}); check `hub_split`") from error
    yield from _numbered(source, rows)


def _read_files(source: str) -> Iterator[Row | BadRow]:
    try:
        fs, path = url_to_fs(source)
        files = _files(fs, path)
    except Exception as error:  # every fsspec backend raises errors of its own
        raise SourceError(f"data source {shown(source)}: cannot be listed ({_said(error)}); check its path") from error
    if not files:
        raise SourceError(
            f"data source {shown(source)}: there is no jsonl, csv or parquet file there; check its path and the "
            "endings of the files"
        )
    for file in files:
        place = _place(fs, file)
        try:
            yield from _read_file(fs, file, place)
        except UnicodeDecodeError as error:
            raise SourceError(f"{place}: is not UTF-8; save it as UTF-8") from error
        except SourceError:
            raise
        except Exception as error:  # every fsspec backend raises errors of its own
            raise SourceError(f"{place}: cannot be read ({_said(error)}); mend or remove the file") from error


def _files(fs: fsspec.AbstractFileSystem, path: str) -> list[str]:
    """Files to read, sorted by path. A file that is named itself is read whatever its folder."""
    if fs.isfile(path):
        return [path]
    found = fs.glob(path) if fsspec.core.has_magic(path) else fs.find(path)
    below = [file for match in found for file in ([match] if fs.isfile(match) else fs.find(match))]
    return sorted({file for file in below if ENDINGS.search(file)})


def _place(fs: fsspec.AbstractFileSystem, file: str) -> str:
    if not isinstance(fs, LocalFileSystem):
        return shown(fs.unstrip_protocol(file))
    return min(file, os.path.relpath(file), key=len)


def _read_file(fs: fsspec.AbstractFileSystem, file: str, place: str) -> Iterator[Row | BadRow]:
    ending = ENDINGS.search(file)
    kind = ending.group(1) if ending else None
    if kind == "parquet":
        yield from _read_parquet(fs, file, place)
    elif kind == "csv":
        yield from _read_csv(fs, file, place)
    elif kind:
        yield from _read_jsonl(fs, file, place)
    else:
        raise ValueError("its name does not end in jsonl, csv or parquet")


def _read_jsonl(fs: fsspec.AbstractFileSystem, file: str, place: str) -> Iterator[Row | BadRow]:
    with fs.open(file, "rb", compression="infer") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode("utf-8-sig"))
            except json.JSONDecodeError as error:
                yield BadRow(f"{place}:{number}:{error.colno}", "is not JSON")
            except UnicodeDecodeError:
                yield BadRow(f"{place}:{number}", "is not UTF-8")
            else:
                if isinstance(values, dict):
                    yield Row(f"{place}:{number}", values)
                else:
                    yield BadRow(f"{place}:{number}", "is not a JSON object")


def _read_csv(fs: fsspec.AbstractFileSystem, file: str, place: str) -> Iterator[Row | BadRow]:
    csv.field_size_limit(LONGEST_CELL)
    with fs.open(file, "rt", compression="infer", encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)  # or a quote left open would swallow the rest of the file
        header = next(reader, [])
        begin = reader.line_num + 1
        try:
            for cells in reader:
                if len(cells) == len(header):
                    yield Row(f"{place}:{begin}", dict(zip(header, cells, strict=True)))
                elif cells:
                    yield BadRow(f"{place}:{begin}", f"has not as many cells as the header, which has {len(header)}")
                begin = reader.line_num + 1
        except csv.Error as error:
            raise SourceError(
                f"{place}:{begin}: the row that begins here is no CSV ({error}); mend its quotes"
            ) from error


def _read_parquet(fs: fsspec.AbstractFileSystem, file: str, place: str) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with fs.open(file, "rb") as handle:
        batches = pq.ParquetFile(handle).iter_batches()
        yield from _numbered(place, (values for batch in batches for values in batch.to_pylist()))


def _numbered(place: str, rows: Iterable[dict[str, Any]]) -> Iterator[Row]:
    for number, values in enumerate(rows, start=1):
        yield Row(f"{place}#{number}", values)


def _said(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
