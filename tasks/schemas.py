"""JSON and its schemas, wherever a model writes it: is a text JSON, is a schema one, does the one fit the other."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import ConfigError

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

NOTHING: Any = object()
"""What parsing gives for a text that is not JSON; None is a value of JSON."""
LONGEST = 300
"""Characters of what is wrong with a schema: it may quote all of it."""


def parse(text: str) -> Any:
    """The JSON value of a whole text; `NOTHING` where it is none. NaN and Infinity are no JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return NOTHING


def read_schema_file(file: Path) -> Any:
    """What a file with a schema holds. Raises ConfigError where it cannot be read, or is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the JSON schema {file} cannot be read ({error.strerror}): check its path") from None
    except ValueError as error:
        raise ConfigError(f"the JSON schema {file} is not JSON: {error}") from None


def validator_of(schema: Any, called: str) -> "Validator":
    """What checks values against a schema; nothing is fetched that it refers to outside itself.

    Raises ConfigError where it is no JSON schema; `called` is what it is called then.
    """
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry

    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        wrong = f"{error.message[:LONGEST]} at {error.json_path}"
        raise ConfigError(f"{called} is not a JSON schema: {wrong}") from None
    return kind(schema, registry=Registry())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
