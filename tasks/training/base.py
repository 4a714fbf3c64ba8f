"""The base model: where its weights lie, which weights they are, and how they are loaded."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.config.settings import find_path
from tasks.config.training import BaseModelConfig
from tasks.errors import ModelError

if TYPE_CHECKING:
    import torch

WEIGHTS = ("*.safetensors", "*.bin")
AROUND = ("*.json", "*.jinja", "additional_chat_templates/*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")
SETTINGS = ("config.json", "generation_config.json", "*.py")
PROVENANCE = ("transformers_version", "_name_or_path")
CHUNK = 1 << 24


def fetch_base(base: BaseModelConfig) -> Path:
    """The folder with the model's files: the local one, or a snapshot of the hub's.

    Raises ModelError where there is neither.
    """
    if (folder := find_path(base.model)).is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if base.model.count("/") != 1 or base.model.startswith((".", "/")):
        raise ModelError(f"there is no model folder {base.model}: name a folder, or a model of the hub as owner/name")
    try:
        return Path(
            snapshot_download(base.model, revision=base.revision, ignore_patterns=["*.pth", "*.gguf", "*.onnx"])
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        what = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"the model {base.model} cannot be fetched from the hub, and is not there locally: check the name, the "
            f"revision and the network ({what})"
        ) from error


def pin_base(base: BaseModelConfig) -> BaseModelConfig:
    """The configuration that leads to the same files for ever: from the hub, with the commit of their snapshot.

    Raises ModelError where there are no files.
    """
    if find_path(base.model).is_dir():
        return base
    return base.model_copy(update={"revision": fetch_base(base).name})


def hash_base(folder: Path) -> str:
    """A hash over the weights, whatever the files around them are; an adapter fits no other weights.

    Raises ModelError where the folder holds no weights.
    """
    files = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))
    if not files:
        raise ModelError(f"{folder} holds no weights (*.safetensors or *.bin): is it a model's folder?")
    return _hash_files(_stamps(files))


def hash_around(folder: Path) -> str:
    """A hash over the files beside the weights that decide what a model does: configuration, tokenizer, template."""
    return _hash_files(_stamps(sorted({file for pattern in AROUND for file in folder.glob(pattern)})))


def hash_settings(folder: Path) -> str:
    """A hash over what decides, beside the weights, what a base model computes: its configuration and its own code.

    Where the files were written, and by which release of transformers, is left out.
    """
    digest = hashlib.sha256()
    for file in sorted(file for pattern in SETTINGS for file in folder.glob(pattern)):
        digest.update(f"{file.name}\n".encode())
        digest.update(_decisive(file.read_bytes()) if file.suffix == ".json" else file.read_bytes())
    return f"sha256:{digest.hexdigest()}"


def _decisive(config: bytes) -> bytes:
    values = {key: value for key, value in json.loads(config).items() if key not in PROVENANCE}
    return json.dumps(values, sort_keys=True).encode()


def _stamps(files: list[Path]) -> tuple[tuple[str, int, int], ...]:
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=16)
def _hash_files(stamps: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, size, _ in stamps:
        digest.update(f"{Path(path).name} {size}\n".encode())
        with open(path, "rb") as file:
            while block := file.read(CHUNK):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def load_tokenizer(folder: Path) -> Any:
    """The model's tokenizer, able to pad. Raises ModelError where it has no chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{folder} has no chat template, so nobody knows how a conversation is written for it: take the "
            "instruction-tuned model of the same family"
        )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def load_base(folder: Path, dtype: "torch.dtype", *, attention: str | None = None, four_bit: bool = False) -> Any:
    """The model with its weights in `dtype`, on the process's GPU where there is one.

    Raises ModelError where it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from tasks.training.varlen import register

    register()
    options: dict[str, Any] = {"dtype": dtype}
    if attention:
        options["attn_implementation"] = attention
    if torch.cuda.is_available():
        options["device_map"] = {"": torch.cuda.current_device()}
    if four_bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
        )
    try:
        return AutoModelForCausalLM.from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ModelError(
            f"the model in {folder} cannot be loaded: {str(error).strip().partition(chr(10))[0]}"
        ) from error
