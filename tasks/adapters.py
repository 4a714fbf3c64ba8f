"""Opens registered adapter versions for whoever asks: the pyfunc in MLflow, a fine-tune that goes on, the gate's proof.

Knows nothing of Prefect, so that a model loaded from MLflow starts quickly.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.config.settings import Home, find_home
from tasks.errors import RegistryError
from tasks.records import AdapterManifest, number_of
from tasks.training.adapter import Adapted, check_weights, prove_shapes

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
    if "adapter" not in manifest:
        raise RegistryError(f"{name} is no adapter: version {version.number} is one of an index")
    return AdapterManifest.from_json(manifest), fetch_file(client, name, version.number, ADAPTER_FILE, folder)


def prove(manifest: Mapping[str, Any]) -> None:
    """Show that an adapter version and its base model are there, are the registered ones, and fit.

    Raises ModelError if not.
    """
    adapter = AdapterManifest.from_json(manifest)
    with tempfile.TemporaryDirectory() as folder:
        _, files = fetch_adapter(adapter.adapter, number_of(adapter.tag), Path(folder), find_home())
        prove_shapes(check_weights(adapter, files), files)


def live_adapter(name: str, home: Home) -> Callable[..., list[str]]:
    """What answers now under a name, as `answering` opens it. Raises RegistryError where nothing is live."""
    with tempfile.TemporaryDirectory() as folder:
        manifest, files = fetch_adapter(name, "champion", Path(folder), home)
        return answering(asdict(manifest), str(files))


def answering(manifest: Mapping[str, Any], adapter: str) -> Callable[..., list[str]]:
    """The entry point of the MLflow model: messages of a user in, answers out."""
    adapted = Adapted(AdapterManifest.from_json(manifest), Path(adapter))

    def answer(messages: list[str], system: str = "", max_new_tokens: int = MAX_NEW_TOKENS) -> list[str]:
        first = [{"role": "system", "content": system}] if system else []
        return adapted.answer([[*first, {"role": "user", "content": text}] for text in messages], max_new_tokens)

    return answer
