"""What all configuration models share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.fields import ComputedFieldInfo, FieldInfo

from tasks.config.addresses import secret_in, shown

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Share = Annotated[float, Field(ge=0, le=1)]


def _without_secret(address: str) -> str:
    if what := secret_in(address):
        raise ValueError(
            f"{shown(address)} holds {what}, which logs and every version would show: give it through the environment "
            "(for git, a credential helper or `token_env`; for an endpoint, `api_key_env`; for a store, the variables "
            "of its library, such as AWS_SECRET_ACCESS_KEY)"
        )
    return address


Address = Annotated[str, AfterValidator(_without_secret)]
"""A path or URL without a password or token in it."""


def _title(name: str, _: FieldInfo | ComputedFieldInfo) -> str:
    return name.replace("_", " ").capitalize()


class Strict(BaseModel):
    """Unknown keys are errors, so that a misspelt setting is never silently ignored."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,  # Prefect logs them whole, and an address may hold a password
        frozen=True,
        use_attribute_docstrings=True,
        field_title_generator=_title,  # or a form calls a group of settings by the name of its class
    )
