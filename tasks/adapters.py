"""Opens registered adapter versions for whoever asks: the pyfunc in MLflow, a fine-tune that goes on, the gate's proof.

Knows nothing of Prefect, so that a model loaded from MLflow starts quickly.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from tasks.config.settings import Home, find_home
from tasks.errors import RegistryError
from tasks.records import AdapterManifest, kind_of, number_of
from tasks.training.adapter import Adapted, check_files, prove_shapes

ENTRY_POINT = "tasks.adapters:answering"
ADAPTER_FILE = "adapter"
"""Name of the adapter's folder among the version's files."""
MAX_NEW_TOKENS = 256


def fetch_adapter(name: str, which: int | str, folder: Path, home: Home) -> tuple[AdapterManifest, Path]:
    """Download a registered adapter, by number or alias, into a folder.

    Raises RegistryError where there is no such version, or it is no adapter.
    """
    from tasks.registry.connection import connect
    from tasks.registry.versions import fetch_file, get, load_manifest

    client = connect(home)
    version = get(client, name, which)
    manifest = load_manifest(client, name, version.number)
    if (kind := kind_of(manifest)) != "adapter":
        raise RegistryError(f"{name} is no adapter: version {version.number} is registered as {kind}")
    return AdapterManifest.from_json(manifest), fetch_file(client, name, version.number, ADAPTER_FILE, folder)


def kept_adapter(pinned: str, home: Home) -> Path:
    """The folder of an adapter, named as ``name@number``, where other processes of this machine may read it."""
    name, _, number = pinned.partition("@")
    folder = home.cache / "adapters" / f"{name}-v{number}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (kept := folder / ADAPTER_FILE).exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
                fetch_adapter(name, int(number), Path(aside), home)
                Path(aside).rename(folder)
    return kept


def prove(manifest: Mapping[str, Any]) -> None:
    """Show that an adapter version and its base model are there, are the registered ones, and fit.

    Raises ModelError if not.
    """
    adapter = AdapterManifest.from_json(manifest)
    with tempfile.TemporaryDirectory() as folder:
        _, files = fetch_adapter(adapter.adapter, number_of(adapter.tag), Path(folder), find_home())
        prove_shapes(check_files(adapter, files), files)


def open_adapter(name: str, which: int | str, home: Home) -> Adapted:
    """A registered adapter, by number or alias, on its base model. Raises RegistryError where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        return Adapted(*fetch_adapter(name, which, Path(folder), home))


def answering(manifest: Mapping[str, Any], adapter: str) -> Callable[..., list[str]]:
    """The entry point of the MLflow model: messages of a user in, answers out."""
    adapted = Adapted(AdapterManifest.from_json(manifest), Path(adapter))

    def answer(messages: list[str], system: str = "", max_new_tokens: int = MAX_NEW_TOKENS) -> list[str]:
        first = [{"role": "system", "content": system}] if system else []
        return adapted.answer([[*first, {"role": "user", "content": text}] for text in messages], max_new_tokens)

    return answer
