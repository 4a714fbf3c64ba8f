"""The packaged all-MiniLM-L6-v2 on the CPU, through OpenVINO.

The network is small enough to be written down here, straight over the weights file: loading then needs
neither torch nor a converted copy on disk, and takes a fraction of a second.
"""

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as op
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from tasks.config.index import EmbedderConfig
from tasks.index.embedding import PACKAGED, Vectors

MAX_TOKENS = 256
"""Longer texts are cut, as sentence-transformers does with this model."""
BUCKET = 16
"""Texts are padded to a multiple of this many tokens."""
BATCH_TOKENS = 512
"""Tokens computed together; larger batches are not faster on one thread."""


class MiniLM:
    """An `Embedder` whose vectors do not depend, to the bit, on what is embedded together.

    The shape of the batch that a text is computed in follows from its own length alone (the last batch of
    each length is filled up), and one thread computes it: the arithmetic is the same wherever the text
    stands. Queries are computed singly, each for itself.
    """

    def __init__(self, config: EmbedderConfig, folder: Path, fingerprint: str) -> None:
        self.label = f"{PACKAGED}, {config.precision}, OpenVINO"
        self.fingerprint = fingerprint
        self.tokenizer_file = folder / "tokenizer.json"
        self._config = config
        self._tokenizer = Tokenizer.from_file(str(self.tokenizer_file))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        model = build_network(folder, int8=config.precision == "int8")
        self.dimension: int = model.output(0).partial_shape[1].get_length()
        self._queue = ov.AsyncInferQueue(_compile(model, config.precision))
        self._lock = threading.Lock()

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        return self._embed([self._config.passage_prefix + text for text in texts], BATCH_TOKENS)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embed([self._config.query_prefix + text for text in texts], 0)

    def _embed(self, texts: list[str], batch_tokens: int) -> Vectors:
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)

        def collect(request: ov.InferRequest, places: list[int]) -> None:
            vectors[places] = request.get_output_tensor().data[: len(places)]

        with self._lock:
            self._queue.set_callback(collect)
            for places, rows, length in form_batches([len(ids) for ids in tokens], batch_tokens):
                self._queue.start_async(_pad([tokens[place] for place in places], rows, length), places)
            self._queue.wait_all()
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def form_batches(lengths: Sequence[int], batch_tokens: int) -> list[tuple[list[int], int, int]]:
    """Batches of (places of the texts, rows, tokens a row), longest first; the length decides the shape."""
    buckets: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        buckets.setdefault(-(-length // BUCKET) * BUCKET, []).append(place)
    batches = []
    for length in sorted(buckets, reverse=True):
        rows = max(1, batch_tokens // length)
        places = buckets[length]
        batches += [(places[start : start + rows], rows, length) for start in range(0, len(places), rows)]
    return batches


def _pad(tokens: list[list[int]], rows: int, length: int) -> list[npt.NDArray[np.generic]]:
    ids = np.zeros((rows, length), dtype=np.int32)
    mask = np.zeros((rows, length), dtype=np.float32)
    mask[:, 0] = 1  # rows without a text must not divide by zero
    for row, own in enumerate(tokens):
        ids[row, : len(own)] = own
        mask[row, : len(own)] = 1
    return [ids, mask]


def _compile(model: ov.Model, precision: str) -> ov.CompiledModel:
    core = ov.Core()
    # A CPU without half precision would emulate it, many times slower than single precision.
    bf16 = precision == "bf16" and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    threads = os.cpu_count() or 1
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        # Activations are quantised in groups of 128 as they come, so that no calibration is needed.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 128 if precision == "int8" else 0,
    }
    return core.compile_model(model, "CPU", settings)


def build_network(folder: Path, int8: bool) -> ov.Model:
    """BERT (Devlin et al. 2019) with mean pooling: ids and mask of shape (rows, tokens) to (rows, dimension).

    With `int8` the weights of the linear layers are rounded to 8 bits, symmetrically for each output.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    weights = load_file(folder / "model.safetensors")

    def constant(name: str) -> ov.op.Constant:
        return ov.op.Constant(weights[name], shared_memory=True)

    def linear(x: ov.Node, name: str) -> ov.Node:
        matrix = _rounded(weights[f"{name}.weight"]) if int8 else constant(f"{name}.weight")
        return op.add(op.matmul(x, matrix, False, True), constant(f"{name}.bias"))

    def norm(x: ov.Node, name: str) -> ov.Node:
        scaled = op.mvn(x, np.array([-1]), True, config["layer_norm_eps"], "inside_sqrt")
        return op.add(op.multiply(scaled, constant(f"{name}.weight")), constant(f"{name}.bias"))

    def heads(x: ov.Node) -> ov.Node:
        shape = np.array([0, 0, config["num_attention_heads"], -1])
        return op.transpose(op.reshape(x, shape, True), np.array([0, 2, 1, 3]))

    def lookup(table: str, rows: ov.Node) -> ov.Node:
        return op.gather(constant(f"embeddings.{table}_embeddings.weight"), rows, np.int32(0))

    ids = op.parameter([-1, -1], np.int32, "ids")
    mask = op.parameter([-1, -1], np.float32, "mask")
    length = op.gather(op.shape_of(ids, "i32"), np.int32(1), np.int32(0))
    positions = op.range(np.int32(0), length, np.int32(1), "i32")
    x = op.add(lookup("word", ids), op.add(lookup("position", positions), lookup("token_type", np.int32(0))))
    x = norm(x, "embeddings.LayerNorm")
    hidden = op.unsqueeze(op.multiply(op.subtract(mask, np.float32(1)), np.float32(1e4)), np.array([1, 2]))
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        query, key, value = (heads(linear(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value"))
        mixed = op.transpose(op.scaled_dot_product_attention(query, key, value, hidden), np.array([0, 2, 1, 3]))
        mixed = linear(op.reshape(mixed, np.array([0, 0, -1]), True), f"{layer}.attention.output.dense")
        x = norm(op.add(mixed, x), f"{layer}.attention.output.LayerNorm")
        inner = op.gelu(linear(x, f"{layer}.intermediate.dense"), "erf")
        x = norm(op.add(linear(inner, f"{layer}.output.dense"), x), f"{layer}.output.LayerNorm")
    counted = op.unsqueeze(mask, np.array(-1))
    total = op.reduce_sum(op.multiply(x, counted), np.array([1]))
    return ov.Model([op.divide(total, op.reduce_sum(counted, np.array([1])))], [ids, mask], PACKAGED)


def _rounded(matrix: npt.NDArray[np.float32]) -> ov.Node:
    scale = np.abs(matrix).max(axis=1, keepdims=True) / 127
    return op.multiply(op.convert(np.round(matrix / scale).astype(np.int8), "f32"), scale)
