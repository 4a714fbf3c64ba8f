"""The embedders: what they promise of their vectors, and how they fail."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.config.index import EmbedderConfig
from tasks.config.settings import Home
from tasks.errors import ConfigError, EmbedderError
from tasks.index import embedding
from tasks.index.embedding import Embedder, embedder_fingerprint, load_embedder, packaged_folder, resolve
from tasks.index.minilm import form_batches
from tasks.index.reranking import rerank
from tests.endpoint import Answer, numbered, serve, two_numbers

WORDS = [
    "the",
    "employee",
    "asks",
    "how",
    "many",
    "days",
    "of",
    "annual",
    "leave",
    "remain",
    "in",
    "2025",
    "naïve",
    "東京",
]
texts_of_all_lengths = st.builds(
    lambda seed, length: " ".join(np.random.default_rng(seed).choice(WORDS, length).tolist()),
    st.integers(0, 999),
    st.one_of(st.integers(0, 40), st.integers(0, 300)),
)


@pytest.fixture(scope="module")
def module_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def packaged(module_home: Home) -> Embedder:
    return load_embedder(EmbedderConfig(), module_home)


@pytest.fixture(scope="module")
def reference() -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(packaged_folder()), device="cpu")


@pytest.mark.parametrize(("precision", "at_least"), [("fp32", 0.999999), ("bf16", 0.9998), ("int8", 0.99)])
def test_the_packaged_model_agrees_with_sentence_transformers(
    precision: str, at_least: float, module_home: Home, reference: Any
) -> None:
    embedder = load_embedder(EmbedderConfig.model_validate({"precision": precision}), module_home)
    texts = ["Annual leave", "", "How do I book travel?", " ".join(WORDS * 6), " ".join(WORDS * 40)]
    vectors = embedder.embed_passages(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, 384) == (5, embedder.dimension)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    expected = reference.encode(texts, normalize_embeddings=True)
    assert (vectors * expected).sum(axis=1).min() >= at_least
    assert (embedder.embed_queries(texts) * expected).sum(axis=1).min() >= at_least


@settings(max_examples=12, deadline=None)
@given(texts=st.lists(texts_of_all_lengths, min_size=1, max_size=20), data=st.data())
def test_a_vector_is_the_same_to_the_bit_whatever_it_is_batched_with(
    texts: list[str], data: st.DataObject, packaged: Embedder
) -> None:
    together = packaged.embed_passages(texts)
    order = data.draw(st.permutations(range(len(texts))))
    assert np.array_equal(packaged.embed_passages([texts[place] for place in order]), together[order])
    alone = data.draw(st.integers(0, len(texts) - 1))
    assert np.array_equal(packaged.embed_passages([texts[alone]])[0], together[alone])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_other_precisions_keep_that_law(precision: str, module_home: Home) -> None:
    embedder = load_embedder(EmbedderConfig.model_validate({"precision": precision}), module_home)
    texts = [" ".join(WORDS * 12)[: 7 * number] for number in range(1, 61)]
    together = embedder.embed_passages(texts)
    assert np.array_equal(embedder.embed_passages(texts[::-1])[::-1], together)
    for place in (0, 17, 42, 59):
        assert np.array_equal(embedder.embed_passages([texts[place]])[0], together[place])


def test_a_query_has_the_same_vector_alone_and_among_others(packaged: Embedder) -> None:
    queries = ["leave", "How do I book travel?", " ".join(WORDS)]
    together = packaged.embed_queries(queries)
    assert all(
        np.array_equal(packaged.embed_queries([query])[0], vector)
        for query, vector in zip(queries, together, strict=True)
    )


def test_no_texts_give_no_vectors(packaged: Embedder) -> None:
    assert packaged.embed_passages([]).shape == (0, 384)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 256), max_size=200))
def test_batches_hold_every_text_once_in_a_shape_that_its_own_length_decides(lengths: list[int]) -> None:
    shape_of: dict[int, tuple[int, int]] = {}
    placed = []
    for places, rows, length in form_batches(lengths, 512):
        assert len(places) <= rows
        assert rows * length <= 512
        placed += places
        for place in places:
            assert lengths[place] <= length < lengths[place] + 16
            assert shape_of.setdefault(lengths[place], (rows, length)) == (rows, length)
    assert sorted(placed) == list(range(len(lengths)))


def test_threads_may_ask_at_once(packaged: Embedder) -> None:
    texts = [[f"{word} {number}" for word in WORDS] for number in range(6)]
    expected = [packaged.embed_passages(some) for some in texts]
    found: list[Any] = [None] * len(texts)

    def ask(place: int) -> None:
        found[place] = packaged.embed_passages(texts[place])

    threads = [threading.Thread(target=ask, args=[place]) for place in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_the_packaged_model_loads_without_torch_in_a_process_of_its_own(home: Home) -> None:
    script = """
import sys
from tasks.config.index import EmbedderConfig
from tasks.config.settings import find_home
from tasks.index.embedding import load_embedder
load_embedder(EmbedderConfig(), find_home()).embed_queries(["leave"])
print([name for name in ("torch", "transformers", "sentence_transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_prefixes_are_embedded_with_the_text(packaged: Embedder, module_home: Home) -> None:
    prefixed = load_embedder(EmbedderConfig(query_prefix="query: ", passage_prefix="passage: "), module_home)
    assert np.array_equal(prefixed.embed_queries(["leave"]), packaged.embed_queries(["query: leave"]))
    assert np.array_equal(prefixed.embed_passages(["leave"]), packaged.embed_passages(["passage: leave"]))


def test_the_fingerprint_changes_with_all_that_changes_vectors_and_with_nothing_else(home: Home) -> None:
    different: list[dict[str, Any]] = [
        {"precision": "fp32"},
        {"precision": "bf16"},
        {"precision": "int8"},
        {"precision": "fp32", "passage_prefix": "p"},
        {"precision": "fp32", "query_prefix": "p"},
        {"kind": "openai", "model": "small"},
        {"kind": "openai", "model": "large"},
        {"kind": "openai", "model": "large", "dimensions": 8},
        {"kind": "openai", "model": "large", "base_url": "http://localhost/v1"},
    ]
    found = [embedder_fingerprint(EmbedderConfig.model_validate(one), home) for one in different]
    assert len(set(found)) == len(found)
    again = EmbedderConfig(precision="fp32", batch_size=7, max_retries=1, requests_per_minute=3, api_key_env="X")
    assert embedder_fingerprint(again, home) == found[0]


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ({"avx2", "avx512_vnni", "amx_bf16"}, "bf16"),
        ({"avx2", "avx512_vnni", "avx512_bf16"}, "bf16"),
        ({"avx2", "avx_vnni"}, "int8"),
        ({"avx2"}, "fp32"),
        (set(), "fp32"),
    ],
)
def test_auto_is_settled_by_what_the_processor_can_do(
    flags: set[str], precision: str, monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    monkeypatch.setattr(embedding, "_cpu_flags", lambda: flags)
    settled = resolve(EmbedderConfig())
    assert settled.precision == precision
    assert embedder_fingerprint(settled, home) == embedder_fingerprint(EmbedderConfig(), home)


def test_the_packaged_kind_refuses_another_models_name(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"bge-small.*set embedder\.kind to sentence-transformers"):
        load_embedder(EmbedderConfig(model="bge-small"), home)


# Any sentence-transformers model


def save_tiny_bert(folder: Path, seed: int = 0, **labels: Any) -> Path:
    """A random BERT of one layer; with `num_labels=1` a cross-encoder, else plain."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
        **labels,
    )
    (BertForSequenceClassification if labels else BertModel)(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(packaged_folder())).save_pretrained(folder)
    return folder


def test_a_folder_with_a_model_embeds(tmp_path: Path, home: Home) -> None:
    config = EmbedderConfig(kind="sentence-transformers", model=str(save_tiny_bert(tmp_path / "tiny")))
    embedder = load_embedder(config, home)
    vectors = embedder.embed_passages(["annual leave", "travel"])
    assert vectors.shape == (2, 16) == (2, embedder.dimension)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert embedder.tokenizer_file == tmp_path / "tiny" / "tokenizer.json"
    assert embedder.embed_queries([]).shape == (0, 16)


def test_the_fingerprint_of_a_folder_follows_its_weights_and_not_its_place(tmp_path: Path, home: Home) -> None:
    def fingerprint(folder: Path) -> str:
        return embedder_fingerprint(EmbedderConfig(kind="sentence-transformers", model=str(folder)), home)

    one = fingerprint(save_tiny_bert(tmp_path / "one"))
    assert fingerprint(save_tiny_bert(tmp_path / "same")) == one
    assert fingerprint(save_tiny_bert(tmp_path / "other", seed=1)) != one
    save_tiny_bert(tmp_path / "one", seed=1)
    assert fingerprint(tmp_path / "one") != one


@pytest.mark.parametrize("model", ["nobody/has-this-model", "no such name!"])
def test_a_model_that_cannot_be_found_says_what_to_do(model: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EmbedderError, match=r"(?s)neither a folder here.*download it, or set"):
        load_embedder(EmbedderConfig(kind="sentence-transformers", model=model), home)


def test_a_folder_without_a_model_says_so(tmp_path: Path, home: Home) -> None:
    config = EmbedderConfig(kind="sentence-transformers", model=str(tmp_path))
    with pytest.raises(EmbedderError, match="holds no model files"):
        load_embedder(config, home)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EmbedderError, match="does not load"):
        load_embedder(config, home)


def test_a_cross_encoder_scores_each_text_in_order(tmp_path: Path) -> None:
    model = str(save_tiny_bert(tmp_path / "cross", num_labels=1))
    texts = ["annual leave", "travel", "annual leave"]
    scores = rerank("leave", texts, model)
    assert len(scores) == 3
    assert scores[0] == pytest.approx(scores[2], abs=1e-5)
    assert abs(scores[0] - scores[1]) > 1e-3
    assert rerank("leave", [], model) == []


def test_a_reranker_that_cannot_be_found_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EmbedderError, match=r"(?s)nobody/has-this cannot be loaded.*search\.reranker"):
        rerank("leave", ["text"], "nobody/has-this")


# An endpoint


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")


@pytest.mark.usefixtures("key")
def test_an_endpoint_is_asked_in_batches_and_its_vectors_are_normalised(home: Home) -> None:
    with serve(batch_size=2, dimensions=2, passage_prefix="p:") as served:
        vectors = load_embedder(served.config, home).embed_passages(["a", "b", "ccc"])
    assert [body["input"] for body in served.asked] == [["p:a", "p:b"], ["p:ccc"]]
    assert served.asked[0]["path"] == "/v1/embeddings"
    assert served.asked[0]["key"] == "Bearer secret"
    assert served.asked[0]["dimensions"] == 2
    assert vectors == pytest.approx(np.array([[3 / 153**0.5, 12 / 153**0.5]] * 2 + [[3 / 409**0.5, 20 / 409**0.5]]))


@pytest.mark.usefixtures("key")
def test_failures_that_may_pass_are_tried_again(home: Home) -> None:
    with serve(failures=[429, 500, 503], dimensions=2, max_retries=3) as served:
        assert load_embedder(served.config, home).embed_queries(["a"]).shape == (1, 2)
    assert len(served.asked) == 4


@pytest.mark.usefixtures("key")
def test_failures_that_stay_are_a_clear_error(home: Home) -> None:
    with serve(failures=[500] * 9, dimensions=2, max_retries=1) as served:
        embedder = load_embedder(served.config, home)
        with pytest.raises(EmbedderError, match=r"small, http://127.*gave no vectors.*500.*base_url"):
            embedder.embed_passages(["a"])
    assert len(served.asked) == 2


@pytest.mark.usefixtures("key")
def test_a_wrong_key_is_not_tried_again(home: Home) -> None:
    with serve(failures=[401] * 9, dimensions=2) as served:
        embedder = load_embedder(served.config, home)
        with pytest.raises(EmbedderError, match=r"401.*the key in OPENAI_API_KEY"):
            embedder.embed_passages(["a"])
    assert len(served.asked) == 1


@pytest.mark.usefixtures("key")
def test_the_dimension_is_found_out_where_it_is_not_configured(home: Home) -> None:
    with serve() as served:
        assert load_embedder(served.config, home).dimension == 2
    assert "dimensions" not in served.asked[0]


@pytest.mark.usefixtures("key")
def test_an_answer_in_another_order_is_put_right(home: Home) -> None:
    with serve(answer=lambda texts: two_numbers(texts)[::-1], dimensions=2) as served:
        vectors = load_embedder(served.config, home).embed_passages(["a", "long text"])
    assert vectors[0, 0] > vectors[1, 0]


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda texts: two_numbers(texts)[:1], "2 texts with vectors of shape"),
        (lambda texts: numbered([[1, 2, 3]] * len(texts)), "check embedder.model"),
        (lambda texts: numbered([[1, float("nan")]] * len(texts)), "no numbers"),
        (lambda texts: numbered([[0, 0]] * len(texts)), "null"),
        (lambda texts: numbered([[1] * (place + 1) for place in range(len(texts))]), "gave no vectors"),
        (lambda texts: [], "gave no vectors|missing"),
    ],
)
def test_a_wrong_answer_is_an_error_and_never_a_vector(answer: Answer, says: str, home: Home) -> None:
    with serve(answer=answer, dimensions=2) as served:
        embedder = load_embedder(served.config, home)
        with pytest.raises(EmbedderError, match=says):
            embedder.embed_passages(["a", "b"])


@pytest.mark.usefixtures("key")
def test_an_endpoint_that_is_down_is_a_clear_error(home: Home) -> None:
    with serve(dimensions=2, max_retries=0) as served:
        pass
    with pytest.raises(EmbedderError, match="gave no vectors"):
        load_embedder(served.config, home).embed_passages(["a"])


def test_a_missing_key_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOBODYS_KEY", raising=False)
    with pytest.raises(ConfigError, match="NOBODYS_KEY is not set"):
        load_embedder(EmbedderConfig(kind="openai", api_key_env="NOBODYS_KEY"), home)


@pytest.mark.usefixtures("key")
def test_the_rate_limit_holds_requests_back(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.index.endpoint.Duration", SimpleNamespace(MINUTE=700))  # milliseconds
    with serve(dimensions=2, requests_per_minute=2, batch_size=1) as served:
        embedder = load_embedder(served.config, home)
        start = time.monotonic()
        embedder.embed_passages(["a", "b", "c"])
        assert time.monotonic() - start >= 0.5
    assert len(served.asked) == 3
