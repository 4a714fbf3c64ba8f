"""Structured answers: JSON that fits a schema of the caller's, and nothing else.

A schema may use the keywords that OpenAI's structured outputs know, among them no `allOf`, `not` and `if`
(https://platform.openai.com/docs/guides/structured-outputs): a generator can keep to them while it writes, and none of
them lets a small schema keep a processor busy for minutes.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import AnswerError, ConfigError, SchemaError
from tasks.schemas import LONGEST, NOTHING, parse, read_schema_file, validator_of

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

ANNOTATIONS = {"$schema", "$comment", "title", "description", "default", "examples", "deprecated"}
KEYWORDS = ANNOTATIONS | {
    *("$ref", "$defs", "definitions", "type", "enum", "const", "anyOf"),
    *("properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems"),
    *("minLength", "maxLength", "pattern", "format"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
REFERENCE = re.compile(r"#|#/(\$defs|definitions)/[^/]+")
PARAM = "response_format"


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """What an answer must be."""

    response_format: Mapping[str, Any]
    """As a request in OpenAI's protocol has it."""
    schema: Mapping[str, Any]
    grammar: str
    """The same for llguidance, without white space between values, of which a model could write any amount."""

    def read(self, text: str) -> Any:
        """The JSON value that was written. Raises AnswerError where it is none, or does not fit."""
        value = parse(text)
        if value is NOTHING or not write(value) or not self.fits(value):
            raise AnswerError("the model wrote something else than JSON that fits the schema: it may not know schemas")
        return value

    def fits(self, value: Any) -> bool:
        try:
            return bool(_validator(self.schema).is_valid(value))
        except RecursionError:  # brackets in brackets, hundreds deep
            return False


def read_response_format(asked: Mapping[str, Any] | None) -> AnswerSchema | None:
    """What `response_format` asks for; None where that is text. Raises SchemaError where it cannot be used."""
    if not asked or asked.get("type") == "text":
        return None
    kind = asked.get("type")
    if kind == "json_object":
        return _schema_of(asked, {"type": "object"})
    if kind != "json_schema":
        raise SchemaError(f"{PARAM}.type is {str(kind)[:LONGEST]}: there are text, json_object and json_schema")
    inner = asked.get("json_schema")
    if not isinstance(inner, dict) or not isinstance(inner.get("schema"), dict):
        raise SchemaError(f"{PARAM}.json_schema.schema is missing: it is the JSON schema that the answer shall fit")
    return _schema_of(asked, inner["schema"])


def read_schema(file: Path) -> AnswerSchema:
    """What a file with a JSON schema asks for. Raises SchemaError where it cannot be used."""
    asked = {"name": re.sub(r"[^\w-]", "_", file.stem)[:64], "schema": read_schema_file(file)}
    return _schema_of({"type": "json_schema", "json_schema": asked}, asked["schema"])


def write(value: Any) -> str:
    """A value as JSON; empty where JSON cannot hold it: an infinite number, half of a character."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError:
        return ""
    return text


def _schema_of(asked: Mapping[str, Any], schema: Mapping[str, Any]) -> AnswerSchema:
    try:
        validator_of(schema, PARAM)
        for each in _subschemas(schema):
            _check_keywords(each)
        return AnswerSchema(asked, schema, _grammar_of(schema))
    except RecursionError:
        raise SchemaError(f"{PARAM}: the schema is nested too deeply") from None
    except ConfigError as error:
        raise SchemaError(str(error)) from None


def _subschemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """A schema and all that stand in it."""
    if not isinstance(schema, dict):  # true and false are schemas, too
        return
    yield schema
    for key in ("properties", "$defs", "definitions"):
        for each in schema.get(key, {}).values():
            yield from _subschemas(each)
    for key in ("anyOf", "prefixItems", "items", "additionalProperties"):
        found = schema.get(key)
        for each in found if isinstance(found, list) else (found,):
            yield from _subschemas(each)


def _check_keywords(schema: Mapping[str, Any]) -> None:
    if unknown := sorted(set(schema) - KEYWORDS):
        raise SchemaError(f"{PARAM}: no answer can be held to {unknown[0][:LONGEST]}: leave it out of the schema")
    if not REFERENCE.fullmatch(place := schema.get("$ref", "#")):
        raise SchemaError(f"{PARAM}: {place[:LONGEST]} is not in the schema: refer to #/$defs/NAME")
    if "$ref" in schema and (beside := sorted(set(schema) - ANNOTATIONS - {"$ref", "$defs", "definitions"})):
        raise SchemaError(f"{PARAM}: {beside[0]} stands beside a $ref: write it into the definition")
    try:
        _matches(schema.get("pattern", ""), "")
    except ValueError as error:
        raise SchemaError(f"{PARAM}: {str(error)[:LONGEST]}") from None


def _grammar_of(schema: Mapping[str, Any]) -> str:
    from llguidance import LLMatcher

    try:
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides={"whitespace_flexible": False})
        wrong = LLMatcher.validate_grammar(grammar)
    except ValueError as error:
        wrong = str(error)
    if wrong:
        raise SchemaError(f"{PARAM}: the schema cannot be kept to: {wrong[:LONGEST]}")
    return grammar


def _validator(schema: Mapping[str, Any]) -> "Validator":
    """One that takes no longer the more cunning the schema is: a caller wrote it."""
    from jsonschema import ValidationError
    from jsonschema.validators import extend, validator_for
    from referencing import Registry

    known: dict[tuple[int, int], bool] = {}

    def any_of(within: Any, options: Sequence[Any], value: Any, _: Any) -> Iterator[ValidationError]:
        """Each value is looked at once: alternatives within alternatives double the work."""
        key = id(options), id(value)
        if key not in known:
            known[key] = any(within.evolve(schema=option).is_valid(value) for option in options)
        if not known[key]:
            yield ValidationError("fits no alternative")

    def pattern(_: Any, expression: str, value: Any, __: Any) -> Iterator[ValidationError]:
        if isinstance(value, str) and not _matches(expression, value):
            yield ValidationError("does not match")

    careful: Validator = extend(validator_for(schema), {"anyOf": any_of, "pattern": pattern})(
        schema, registry=Registry()
    )
    return careful


def _matches(expression: str, text: str) -> bool:
    """By an engine that never goes back, as Python's own does. Raises ValueError for what it does not know."""
    from pyarrow import array, compute

    return bool(compute.match_substring_regex(array([text]), expression)[0].as_py())
