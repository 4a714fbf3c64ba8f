"""Settings that name a file under conf/, so that a form can offer the files as choices."""

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tasks.config.loading import load_config
from tasks.config.settings import find_conf

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Choice:
    """Annotates a string that names a file: ``Annotated[str, Choice("models")]`` for conf/models/*.yaml.

    The names that exist when a form is drawn up are its choices; any other is an error that lists them.
    """

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": names_in(self.kind)}

    def _known(self, name: str) -> str:
        known = names_in(self.kind)
        if name not in known:
            raise PydanticCustomError(
                "unknown_choice",
                "there is no conf/{kind}/{name}.yaml; there are {known}",
                {"kind": self.kind, "name": name, "known": ", ".join(known) or "none"},
            )
        return name


def names_in(kind: str) -> list[str]:
    """The names that can be chosen: the files under conf/<kind>/, without their ending."""
    return sorted(path.stem for path in (find_conf() / kind).glob("*.yaml"))


def load_choice(kind: str, name: str, model: type[Model]) -> Model:
    """Read conf/<kind>/<name>.yaml. Raises `ConfigError` as `load_config` does."""
    return load_config(find_conf() / kind / f"{name}.yaml", model)
