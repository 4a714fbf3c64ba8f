"""The converted text of documents, kept for moves, for new chunking, and to show a passage in its place."""

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from tasks.config.settings import Home
from tasks.documents.parsing import PARSER_VERSION
from tasks.index.cache import ContentCache
from tasks.records import ParsedDocument, Passage, SourceFile, known_fields


def open_converted(home: Home) -> ContentCache:
    return ContentCache(home.cache / "documents.sqlite")


def parsed_key(file: SourceFile) -> str:
    """By a file's bytes, the converter's version and the kind of file."""
    # An etag means something on its own server only.
    scope = file.document if file.revision.startswith("etag:") else ""
    identity = [PARSER_VERSION, PurePosixPath(file.path).suffix.lower(), scope, file.revision]
    return hashlib.sha256("\0".join(identity).encode()).hexdigest()


def load_parsed(texts: ContentCache, keys: Sequence[str]) -> dict[str, ParsedDocument]:
    """Converted documents by key; unknown keys are left out."""
    found = texts.get_many(keys)
    return {key: _parsed(json.loads(zlib.decompress(data))) for key, data in found.items()}


def _parsed(values: dict[str, Any]) -> ParsedDocument:
    return ParsedDocument(**known_fields(ParsedDocument, values, "a kept text"))


def keep_parsed(texts: ContentCache, key: str, parsed: ParsedDocument) -> None:
    value = json.dumps(asdict(parsed), ensure_ascii=False, default=str)
    texts.put_many({key: zlib.compress(value.encode(), 3)})


def in_place(passage: Passage, around: int, home: Home) -> tuple[str, str, str] | None:
    """Up to `around` characters before a passage, the passage, and as many after it, as they stand in its document.

    None where the converted text is no longer kept.
    """
    with open_converted(home) as texts:
        parsed = load_parsed(texts, [passage.parsed_key]).get(passage.parsed_key)
    if parsed is None:
        return None
    start, end = passage.start, passage.end
    return parsed.text[max(0, start - around) : start], parsed.text[start:end], parsed.text[end : end + around]
