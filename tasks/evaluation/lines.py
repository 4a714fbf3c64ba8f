"""Files that people write, one JSON object a line: read whole, so that every bad line is told at once."""

import json
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import StringConstraints, TypeAdapter, ValidationError

from tasks.errors import ConfigError

SHOWN = 10
"""Bad lines listed in one message."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Item = TypeVar("Item")


def read_lines(path: Path | str, what: str, parse: Callable[[str, int], Item]) -> tuple[list[Item], dict[int, str]]:
    """What the lines that are not blank hold, and by number what is wrong with those where `parse` raises ValueError.

    Raises:
        ConfigError: the file cannot be read; `what` it is, such as ``golden file``, begins with the setting's name.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        setting = what.partition(" ")[0]
        raise ConfigError(f"{what} {path}: cannot be read ({error.strerror}); check `{setting}`") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} {path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    items: list[Item] = []
    problems: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                items.append(parse(line, number))
            except ValueError as error:
                problems[number] = str(error)
    return items, problems


def read_object(line: str, keys: Collection[str], wanted: str) -> dict[str, Any]:
    """The JSON object of a line, with no keys but these. Raises ValueError; `wanted` are the keys that it must have."""
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(raw, dict):
        raise ValueError(f"not a JSON object with {wanted}")
    for key in raw:
        if key not in keys:
            near = get_close_matches(key, keys, n=1)
            raise ValueError(f"unknown key {key!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    return raw


def fit(adapter: TypeAdapter[Item], raw: dict[str, Any]) -> Item:
    """What an object describes. Raises ValueError with what is wrong by key."""
    try:
        return adapter.validate_python(raw)
    except ValidationError as error:
        raise ValueError("; ".join(map(_sentence, error.errors()))) from error


def bad_lines(path: Path | str, what: str, shown: Sequence[tuple[int, str]], total: int) -> str:
    """The message on lines to mend."""
    lines = [f"line {number}: {problem}" for number, problem in shown[:SHOWN]]
    if total > len(lines):
        lines.append(f"and {total - len(lines)} more")
    return "\n  ".join([f"{what} {path}: {total} to mend", *lines])


def _sentence(part: Any) -> str:
    return f"`{'.'.join(str(key) for key in part['loc'])}`: {part['msg'].lower()}"
