"""Trained adapters: which weights they are, whether they fit a base model, and how they are loaded onto it."""

import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from tasks.config import stored
from tasks.errors import ModelError
from tasks.records import AdapterManifest
from tasks.training.base import fetch_base, hash_around, hash_base, hash_settings, load_base, load_tokenizer

if TYPE_CHECKING:
    from tasks.training.likelihood import Said

Turn = dict[str, str]


class SharedBase:
    """A base model, in memory once, and the adapters that are open on it, of which one answers at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = Lock()
        self._numbers = count()
        self._model: Any = None
        self._dropped: deque[str] = deque()

    def add(self, folder: Path) -> str:
        """Load an adapter; the name by which it is used."""
        import torch
        from peft import PeftModel

        with self._turn:
            self._forget_dropped()
            name = f"adapter_{next(self._numbers)}"
            if self._model is None:
                base = load_base(self._folder, torch.bfloat16 if torch.cuda.is_available() else torch.float32)
                self._model = PeftModel.from_pretrained(base, folder, adapter_name=name).eval()
            else:
                self._model.load_adapter(folder, adapter_name=name)
            return name

    @contextmanager
    def using(self, name: str) -> Iterator[Any]:
        """The model with this adapter, for as long as the block lasts."""
        with self._turn:
            self._forget_dropped()
            self._model.set_adapter(name, inference_mode=True)
            yield self._model

    def drop(self, name: str) -> None:
        """Forget the adapter at the next turn; may be called from anywhere, as the collector of garbage does."""
        self._dropped.append(name)

    def _forget_dropped(self) -> None:
        while self._dropped:
            self._model.delete_adapter(self._dropped.popleft())


_shared: "weakref.WeakValueDictionary[str, SharedBase]" = weakref.WeakValueDictionary()
"""By the hashes of their weights and their settings."""
_sharing = Lock()


class Adapted:
    """An adapter on its base model, ready to answer. All that are open share one base: a further one costs little."""

    def __init__(self, manifest: AdapterManifest, folder: Path) -> None:
        """Raises ModelError where base model or adapter are not the ones the manifest names."""
        base = check_files(manifest, folder)
        self.tokenizer = load_tokenizer(folder)
        with _sharing:
            self._base = _shared.setdefault(hash_base(base) + hash_settings(base), SharedBase(base))
        self._name = self._base.add(folder)
        weakref.finalize(self, self._base.drop, self._name)

    def answer(self, conversations: list[list[Turn]], max_new_tokens: int) -> list[str]:
        """The likeliest answer to each conversation; safe to call from several threads."""
        return [said.text for said in self.say(conversations, max_new_tokens)]

    def say(self, conversations: list[list[Turn]], max_new_tokens: int, grammar: str = "") -> "list[Said]":
        """The same, with how sure the model is of each answer; with a grammar for llguidance, none breaks it."""
        from tasks.training.likelihood import say

        with self._base.using(self._name) as model:
            return say(model, self.tokenizer, conversations, max_new_tokens, grammar)


def check_files(manifest: AdapterManifest, folder: Path) -> Path:
    """The base model's folder, once base and adapter are shown to be the ones that the manifest names.

    Raises ModelError with both hashes where they are not.
    """
    config = stored.base_of(manifest)
    base = fetch_base(config)
    for what, where, expected, found in (
        (f"the base model {config.model}", base, manifest.base_hash, hash_base(base)),
        (f"the configuration of the base model {config.model}", base, manifest.base_settings_hash, hash_settings(base)),
        ("the adapter", folder, manifest.adapter_hash, hash_base(folder)),
        ("the configuration or tokenizer of the adapter", folder, manifest.adapter_settings_hash, hash_around(folder)),
    ):
        if expected and found != expected:
            raise ModelError(
                f"{manifest.adapter} {manifest.tag} does not fit: {what} in {where} has the hash {found}, and it was "
                f"registered with {expected}; bring back those files, or train again"
            )
    return base


def prove_shapes(base: Path, folder: Path) -> None:
    """Show, without loading the base model's weights, that an adapter's matrices fit its layers.

    Raises ModelError if they do not.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
            PeftModel.from_pretrained(model, folder, torch_device="cpu", low_cpu_mem_usage=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"the adapter in {folder} cannot be loaded onto {base}: {error}") from error
