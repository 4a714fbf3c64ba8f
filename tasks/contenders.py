"""What a new adapter goes on from, and what it is scored beside."""

from dataclasses import dataclass
from pathlib import Path

from tasks.adapters import fetch_adapter
from tasks.config.choices import load_choice
from tasks.config.settings import Home
from tasks.config.training import BaseModelConfig, DpoConfig, SftConfig
from tasks.errors import ConfigError
from tasks.evaluation.scores import CANDIDATE, CHAMPION
from tasks.records import AdapterManifest, Trained
from tasks.registry.connection import connect
from tasks.registry.pointers import pointers
from tasks.training.adapter import check_files
from tasks.training.base import fetch_base, hash_base, hash_settings


@dataclass(frozen=True, slots=True)
class Parent:
    """The adapter that training goes on from, or none."""

    folder: Path | None = None
    version: str = ""
    """As ``name@number``."""


@dataclass(frozen=True, slots=True)
class Beside:
    """The adapters to score, and the number of the champion, be it among them or not."""

    adapters: dict[str, Path]
    champion: int | None


def fetch_parent(config: SftConfig | DpoConfig, folder: Path, home: Home) -> Parent:
    """Download the parent adapter that the configuration names.

    Raises:
        ConfigError: it was trained for another base model than the one configured.
        ModelError: its base model's weights are not the ones it was trained for.
    """
    if not config.parent:
        return Parent()
    name, _, which = config.parent.partition("@")
    manifest, files = fetch_adapter(name, int(which) if which.isdigit() else which, folder / "parent", home)
    base = hash_base(fetch_base(load_choice("models", config.base, BaseModelConfig)))
    if base != manifest.base_hash:
        raise ConfigError(
            f"the parent {config.parent} was trained for {manifest.base['model']} ({manifest.base_hash}), and "
            f"conf/models/{config.base}.yaml is another model ({base}): name the base model of the parent"
        )
    check_files(manifest, files)
    return Parent(files, f"{name}@{manifest.tag.removeprefix('v')}")


def find_beside(config: SftConfig | DpoConfig, trained: Trained, folder: Path, home: Home) -> Beside:
    """The candidate, and the champion where it is an adapter of the same base model: one loaded base serves both."""
    adapters = {CANDIDATE: Path(trained.adapter)}
    champion = pointers(connect(home), config.name).champion
    if champion is not None:
        manifest, files = fetch_adapter(config.name, champion, folder / "champion", home)
        if _same_base(manifest, config):
            adapters[CHAMPION] = files
    return Beside(adapters, champion)


def _same_base(manifest: AdapterManifest, config: SftConfig | DpoConfig) -> bool:
    base = fetch_base(load_choice("models", config.base, BaseModelConfig))
    return manifest.base_hash == hash_base(base) and manifest.base_settings_hash in ("", hash_settings(base))
