"""A base model of the hub is registered by the commit of its snapshot, so that no later weights take its place."""

import shutil
from pathlib import Path

import pytest

from tasks.config.settings import Home
from tasks.config.training import BaseModelConfig, SftConfig
from tasks.records import PreparedData, Trained
from tasks.register_adapter import describe_adapter
from tasks.training.base import fetch_base
from tests.tiny_models import write_conf, write_yaml

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model where the hub's library keeps what it has fetched."""
    stored = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_model, stored / "snapshots" / COMMIT)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return stored / "snapshots" / COMMIT


def registered(model: str, adapter: Path, home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch) -> BaseModelConfig:
    """The base model in the manifest of an adapter that was trained on it."""
    write_yaml(write_conf(folder / "conf", adapter) / "models" / "tiny.yaml", {"model": model})
    monkeypatch.setenv("TANDEM_CONF", str(folder / "conf"))
    config = SftConfig(name="tiny", base="tiny", dataset="rows")
    data = PreparedData(folder, folder, "sha256:0", (), {}, ())
    manifest = describe_adapter(config, Trained(str(adapter), "fp32", 1, 1.0, ()), data, "", home)
    return BaseModelConfig.model_validate(manifest.base)


def test_a_base_model_of_the_hub_is_registered_with_its_commit(
    snapshot: Path, tiny_model: Path, ready_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = registered("someone/tiny", tiny_model, ready_home, tmp_path, monkeypatch)
    assert base.revision == COMMIT
    (snapshot.parents[1] / "refs" / "main").write_text("f" * 40)
    assert fetch_base(base) == snapshot


def test_a_base_model_in_a_folder_has_no_commit(
    tiny_model: Path, ready_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registered(str(tiny_model), tiny_model, ready_home, tmp_path, monkeypatch).revision is None
