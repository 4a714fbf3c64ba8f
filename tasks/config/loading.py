"""Reads configurations from YAML, and says where a mistake is and what was probably meant."""

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tasks.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into its model. Raises `ConfigError` naming the file, the key and what to do."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: name a file under conf/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable as YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold keys and values, not {type(raw).__name__}")
    return parse_config(raw, model, str(path))


def parse_config(raw: dict[str, Any], model: type[Model], where: str) -> Model:
    """Validate already loaded values. `where` names their origin in the message of a `ConfigError`."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = error.errors()
        # pydantic drops invalid items before it counts them: not a second mistake
        nested = {problem["loc"][:1] for problem in problems if len(problem["loc"]) > 1}
        kept = [p for p in problems if not (p["type"] == "too_short" and p["loc"] in nested)]
        lines = [f"  {_sentence(problem, model)}" for problem in kept]
        raise ConfigError("\n".join([f"{where} is not a valid {model.__name__}:", *lines])) from None


def _sentence(problem: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "(whole file)"
    if problem["type"] != "extra_forbidden":
        return f"{key}: {problem['msg']}"
    known = _keys_at(model, problem["loc"][:-1])
    close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(known)}"
    return f"{key}: unknown key; {hint}"


def _keys_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The keys of the model nested at `location`, found through the schema's own references."""
    schema: Any = model.model_json_schema()
    definitions = schema.get("$defs", {})
    node = schema
    for part in location:
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
        reference = node.get("$ref") or node.get("allOf", [{}])[0].get("$ref")
        node = definitions[reference.rsplit("/", 1)[-1]] if reference else node
    return sorted(node.get("properties", {}))
