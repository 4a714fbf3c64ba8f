"""Prompts in MLflow's own prompt registry, moved by the same pointers as indexes and adapters."""

import mlflow.genai
import pytest
from mlflow import MlflowClient

from tasks.config.settings import Home
from tasks.errors import ConfigError, RegistryError
from tasks.proof import prove
from tasks.registry.ledger import history
from tasks.registry.pointers import delete_version, pointers, promote, rollback
from tasks.registry.versions import list_names, list_versions, load_manifest, register_prompt
from tests.registry_fixtures import add_version, connected

ME = {"by": "me", "reason": "because", "prove": prove}


@pytest.fixture
def client(home: Home) -> MlflowClient:
    return connected(home)


def turns(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": f"{text} {{{{ passages }}}}"}, {"role": "user", "content": "{{ question }}"}]


def test_a_prompt_gets_a_new_version_only_where_its_words_have_changed(client: MlflowClient) -> None:
    assert register_prompt(client, "answer", turns("Be brief."), "for the help desk").number == 1
    assert register_prompt(client, "answer", turns("Be brief.")).number == 1
    assert register_prompt(client, "answer", turns("Be kind.")).number == 2
    assert [version.number for version in list_versions(client, "answer")] == [1, 2]
    assert load_manifest(client, "answer", 1) == {"prompt": "answer", "tag": "v1", "turns": turns("Be brief.")}
    assert list_names(client) == ["answer"]


def test_a_prompt_is_promoted_rolled_back_and_protected_like_everything_else(client: MlflowClient) -> None:
    for text in ("Be brief.", "Be kind."):
        promote(client, "answer", register_prompt(client, "answer", turns(text)).number, **ME)
    rollback(client, "answer", **ME)
    assert pointers(client, "answer").champion == 1
    assert [(move.what, move.before, move.after) for move in history(client, "answer")] == [
        ("champion", None, 1),
        ("champion", 1, 2),
        ("champion", 2, 1),
    ]
    with pytest.raises(Exception, match="was live before the champion"):
        delete_version(client, "answer", 2)


def test_mlflows_own_way_to_a_prompt_finds_the_version_that_is_live(
    client: MlflowClient, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.tracking_uri)
    promote(client, "answer", register_prompt(client, "answer", turns("Be brief.")).number, **ME)
    found = mlflow.genai.load_prompt("prompts:/answer@champion", cache_ttl_seconds=0)
    assert found.template == turns("Be brief.")


def test_a_prompt_written_in_mlflows_ui_that_lacks_its_passages_does_not_go_live(client: MlflowClient) -> None:
    client.register_prompt("answer", "Just answer {{ question }}")
    with pytest.raises(ConfigError, match="does not name the passages"):
        promote(client, "answer", 1, **ME)
    assert pointers(client, "answer").champion is None


def test_the_name_of_an_index_is_refused(client: MlflowClient) -> None:
    add_version(client, "docs")
    with pytest.raises(RegistryError, match="docs is no prompt"):
        register_prompt(client, "docs", turns("Be brief."))
