"""Rows of any shape become examples of one: turns of conversations, or a prompt with two answers to it."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any

from tasks.config.training import FIELDS, DatasetConfig
from tasks.errors import ConfigError
from tasks.training.chat import EMPTY_THOUGHT
from tasks.training.rows import BadRow, Row

Turn = dict[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``"""

SPEAKERS = {"Human": "user", "Assistant": "assistant"}
MARKER = re.compile(r"\n\n(Human|Assistant):")
TEMPLATE = re.compile(r"\{\{|\{%")


@dataclass(frozen=True)
class Example:
    """A row as it is trained or scored on."""

    place: str
    id: str
    parts: Mapping[str, list[Turn]]
    """``messages``, whose last turn is the answer; or ``prompt``, ``chosen`` and ``rejected``."""
    group: str | None = None
    label: str | None = None
    day: date | None = None

    @property
    def asked(self) -> list[Turn]:
        """The turns before the answer."""
        return self.parts["messages"][:-1] if "messages" in self.parts else self.parts["prompt"]

    @property
    def conversations(self) -> list[list[Turn]]:
        """What the model reads: one conversation, or one for each of the two answers."""
        if "messages" in self.parts:
            return [self.parts["messages"]]
        return [self.parts["prompt"] + self.parts[answer] for answer in ("chosen", "rejected")]

    @cached_property
    def digest(self) -> str:
        """Hash over the turns, and nothing else: the same for the same row of another file."""
        text = json.dumps(self.parts, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_examples(rows: Iterable[Row | BadRow], dataset: DatasetConfig) -> Iterator[Example | BadRow]:
    """Each row as an example, or why it cannot be one.

    Raises:
        ConfigError: a template of the data set's `columns` is not Jinja.
    """
    readers = {field: _reader(field, dataset.columns.get(field, field)) for field in FIELDS[dataset.format]}
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            yield _example(row, readers, dataset)
        except _Malformed as error:
            yield BadRow(row.place, str(error))


class _Malformed(Exception):
    """Why a row is none; goes on a sentence that begins with the rows."""


def _example(row: Row, readers: Mapping[str, Callable[[dict[str, Any]], Any]], dataset: DatasetConfig) -> Example:
    if dataset.format == "preference":
        parts = _preference(row.values, readers, dataset)
    else:
        turns = [turn for field, read in readers.items() for turn in _turns(read(row.values), field, dataset)]
        parts = {"messages": _with_system(turns, dataset.system)}
        _check_order(parts["messages"], "assistant")

    def cell(column: str | None) -> str | None:
        return None if column is None else str(_cell(row.values, column))

    return Example(
        place=row.place,
        id=cell(dataset.id_column) or row.place,
        parts=parts,
        group=cell(dataset.group_column),
        label=cell(dataset.label_column),
        day=None if dataset.date_column is None else _date(_cell(row.values, dataset.date_column), dataset.date_column),
    )


def _preference(
    values: dict[str, Any], readers: Mapping[str, Callable[[dict[str, Any]], Any]], dataset: DatasetConfig
) -> dict[str, list[Turn]]:
    chosen, rejected = (_turns(readers[name](values), name, dataset) for name in ("chosen", "rejected"))
    if "prompt" in dataset.columns or "prompt" in values:
        prompt = _turns(readers["prompt"](values), "prompt", dataset)
    else:
        prompt = chosen[:-1]
        if not prompt or rejected[:-1] != prompt:
            raise _Malformed("has no prompt that `chosen` and `rejected` share")
        chosen, rejected = chosen[-1:], rejected[-1:]
    prompt = _with_system(prompt, dataset.system)
    _check_order(prompt, "user")
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if [turn["role"] for turn in answer] != ["assistant"]:
            raise _Malformed(f"has under `{name}` something other than one turn of the assistant")
        _check_content(answer)
    if chosen == rejected:
        raise _Malformed("has a chosen answer that equals the rejected one")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _reader(field: str, column: str) -> Callable[[dict[str, Any]], Any]:
    """Takes a field's value out of a row."""
    if not TEMPLATE.search(column):
        return lambda values: _cell(values, column)
    from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, finalize=_not_none, keep_trailing_newline=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)  # Jinja's own escapes for HTML
    try:
        template = environment.from_string(column)
    except TemplateSyntaxError as error:
        raise ConfigError(f"columns.{field}: {column!r} is not a Jinja template ({error}); mend it") from error

    def render(values: dict[str, Any]) -> str:
        try:
            return template.render(values, row=values)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise _Malformed(f"does not fit the template of `{field}` ({error})") from error

    return render


def _not_none(value: Any) -> Any:
    if value is None:
        raise ValueError("a value is missing")
    return value


def _cell(values: dict[str, Any], column: str) -> Any:
    if column not in values:
        raise _Malformed(f"has no column `{column}` (but {', '.join(values) or 'none at all'})")
    value = values[column]
    if value is None or value == "" or value == []:
        raise _Malformed(f"has nothing under `{column}`")
    return value


def _turns(value: Any, field: str, dataset: DatasetConfig) -> list[Turn]:
    """The turns of a field that holds them as a list, as JSON, as a transcript or, for one turn, as a text."""
    if isinstance(value, str):
        if dataset.converter == "transcript" and MARKER.search(value):
            return _transcript(value, field)
        if field != "messages":
            return [_turn("user" if field == "prompt" else "assistant", value)]
        try:
            value = json.loads(value)
        except ValueError:
            raise _Malformed("has under `messages` a text that is not JSON") from None
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise _Malformed(f"has under `{field}` neither a text nor a list of turns")
    return [_turn(str(turn.get("role")), _text(turn.get("content"))) for turn in value]


def _turn(role: str, content: str) -> Turn:
    """An empty thought is no part of an answer: the chat template writes it, if need be."""
    return {"role": role, "content": EMPTY_THOUGHT.sub("", content) if role == "assistant" else content}


def _text(content: Any) -> str:
    if not isinstance(content, str):
        raise _Malformed("has a turn whose content is not a text")
    return content


def _transcript(text: str, field: str) -> list[Turn]:
    before, *spoken = MARKER.split(text)
    turns = [
        {"role": SPEAKERS[speaker], "content": content.strip()}
        for speaker, content in zip(spoken[::2], spoken[1::2], strict=True)
    ]
    if field == "prompt" and turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()  # a prompt that ends with the word to the assistant
    return [{"role": "nobody", "content": before}, *turns] if before.strip() else turns


def _with_system(turns: list[Turn], system: str) -> list[Turn]:
    if system and (not turns or turns[0]["role"] != "system"):
        return [{"role": "system", "content": system}, *turns]
    return turns


def _check_order(turns: list[Turn], last: str) -> None:
    """After an optional system turn, user and assistant take turns; the user begins."""
    spoken = turns[1:] if turns and turns[0]["role"] == "system" else turns
    if unknown := {turn["role"] for turn in spoken} - {"user", "assistant"}:
        raise _Malformed(f"has a turn of {' and '.join(sorted(unknown))}, where only user and assistant may speak")
    if not spoken or spoken[-1]["role"] != last:
        raise _Malformed(f"does not end with a turn of the {last}")
    if any(turn["role"] != ("user", "assistant")[place % 2] for place, turn in enumerate(spoken)):
        raise _Malformed("has turns in which user and assistant do not take turns, beginning with the user")
    _check_content(turns)


def _check_content(turns: list[Turn]) -> None:
    if not all(turn["content"].strip() for turn in turns):
        raise _Malformed("has an empty turn")


def _date(value: Any, column: str) -> date:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return datetime.fromisoformat(str(value)).date()
    except ValueError:
        raise _Malformed(f"has no ISO date under `{column}`") from None
