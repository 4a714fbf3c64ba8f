"""What is known of a document besides its text: by the source's rules, then by the document's own words."""

import datetime
import re
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from tasks.config.index import SourceConfig
from tasks.errors import ConfigError
from tasks.records import ParsedDocument, SourceFile

METADATA_VERSION = "2"
"""Part of every document's recipe: raised when these rules change."""


def describe(source: SourceConfig, file: SourceFile, parsed: ParsedDocument) -> dict[str, Any]:
    """title (str), tenant and language (str or None), tags (tuple of str), date (datetime.date or None).

    A document's front matter may name its title, language, tags and date. The tenant comes from the
    configuration alone: a document must not choose who sees it.
    """
    return {
        "title": own_title(source, parsed) or PurePosixPath(file.path).stem,
        "tenant": _tenant(source, file.path),
        "language": _language(parsed.metadata) or _iso_639_1(source.language),
        "tags": tuple(dict.fromkeys([*source.tags, *_tags(parsed.metadata.get("tags"))])),
        "date": _date(source, file.path, parsed.metadata),
    }


def own_title(source: SourceConfig, parsed: ParsedDocument) -> str | None:
    """The title that a document gives itself, whatever its file is called."""
    named = (parsed.metadata.get(key) for key in source.title_keys)
    return next((str(title).strip() for title in named if title and str(title).strip()), None) or parsed.title


def _tenant(source: SourceConfig, path: str) -> str | None:
    if source.tenant_pattern:
        match = _pattern(source.name, "tenant_pattern", source.tenant_pattern, "tenant").search(path)
        if match and match["tenant"]:
            return match["tenant"]
    return source.tenant


def _language(metadata: dict[str, Any]) -> str | None:
    return _iso_639_1(metadata.get("language") or metadata.get("lang"))


def _iso_639_1(language: Any) -> str | None:
    """``en`` from ``en``, ``en-US`` or ``EN_us``; None from what is no language code."""
    match = re.fullmatch(r"([a-z]{2,3})([-_]\w+)*", str(language or "").strip().lower())
    return match[1] if match else None


def _tags(tags: Any) -> list[str]:
    """Tags written as a list, as one string with commas, or as a mixture of both."""
    listed = tags if isinstance(tags, list) else [tags]
    return [tag.strip() for item in listed if item for tag in str(item).split(",") if tag.strip()]


def _date(source: SourceConfig, path: str, metadata: dict[str, Any]) -> datetime.date | None:
    for key in source.date_keys:
        if found := _read_date(metadata.get(key)):
            return found
    if not source.date_pattern:
        return None
    match = _pattern(source.name, "date_pattern", source.date_pattern, "year", "month", "day").search(path)
    try:
        return datetime.date(int(match["year"]), int(match["month"]), int(match["day"])) if match else None
    except (ValueError, TypeError):
        return None


def _read_date(value: Any) -> datetime.date | None:
    """A date in any common spelling; None where not even the year is given."""
    from dateutil import parser

    if not value:
        return None
    try:
        return datetime.date.fromisoformat(str(value)[:10])
    except ValueError:
        pass
    try:  # what is not given is 1 January of the year 1, so that today's date never slips in
        found = parser.parse(str(value), default=datetime.datetime(1, 1, 1)).date()
    except (ValueError, OverflowError):
        return None
    return found if found.year > 1 else None


@cache
def _pattern(source: str, setting: str, pattern: str, *groups: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"source {source}: {setting} {pattern!r} is no regular expression: {error}") from error
    missing = [group for group in groups if group not in compiled.groupindex]
    if missing:
        raise ConfigError(f"source {source}: {setting} {pattern!r} lacks the group (?P<{missing[0]}>…)")
    return compiled
