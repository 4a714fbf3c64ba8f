"""The forms of Prefect's page, as its server gives them to the page, and a rollback as a person makes it there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client

from tasks.config.deployments import DeploymentsConfig
from tasks.config.loading import load_config
from tasks.deploy import deploy_all

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def forms(prefect: None) -> Iterator[dict[str, dict[str, Any]]]:
    """By deployment: the schema of its form, of everything that conf/deployments.yaml names."""
    shipped = load_config(ROOT / "conf" / "deployments.yaml", DeploymentsConfig)
    names, _ = deploy_all(shipped.model_copy(update={"automations": ""}), ROOT)
    with get_client(sync_client=True) as client:
        found = {name: client.read_deployment_by_name(name) for name in names}
        yield {name: deployment.parameter_openapi_schema or {} for name, deployment in found.items()}
        for deployment in found.values():
            client.delete_deployment(deployment.id)


def without_description(form: dict[str, Any]) -> Iterator[str]:
    """Fields of a form, nested ones too; one whose sentence is that of the group of fields it refers to has it."""
    models = form.get("definitions", {})
    for group, schema in {"": form, **models}.items():
        for name, field in schema.get("properties", {}).items():
            referred = models[field["$ref"].rpartition("/")[2]] if "$ref" in field else {}
            if not (field.get("description") or referred.get("description")):
                yield f"{group}.{name}"


def test_every_field_of_every_form_has_its_sentence_as_the_server_gives_it_to_the_page(
    forms: dict[str, dict[str, Any]],
) -> None:
    assert len(forms) > 10
    missing = {name: list(without_description(form)) for name, form in forms.items()}
    assert {name: fields for name, fields in missing.items() if fields} == {}


def test_the_form_of_a_rollback_moves_unless_a_dry_run_is_asked_for(forms: dict[str, dict[str, Any]]) -> None:
    fields = forms["rollback/rollback"]["definitions"]["RollbackConfig"]["properties"]
    assert fields["dry_run"]["default"] is False
