"""What was computed once is kept: across processes, kills and full disks."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import StoreError
from tasks.index.cache import STORE_EVERY, ContentCache, VectorCache, embed_once


class LengthEmbedder:
    """Embeds a text as its length and its number of words; records what it is asked."""

    label = fingerprint = "lengths"
    dimension = 2
    tokenizer_file = Path()

    def __init__(self, fail_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.calls_left = fail_after

    def embed_passages(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if self.calls_left == 0:
            raise RuntimeError("killed")
        if self.calls_left is not None:
            self.calls_left -= 1
        self.asked += texts
        return np.array([[len(text), len(text.split())] for text in texts], dtype=np.float32).reshape(-1, 2)

    embed_queries = embed_passages


def test_values_come_back_under_their_keys_and_unknown_keys_are_missing(tmp_path: Path) -> None:
    with ContentCache(tmp_path / "deep" / "cache.sqlite") as cache:
        cache.put_many({"a": b"one", "b": b"\x00\xff"})
        assert cache.get_many(["b", "a", "c"]) == {"a": b"one", "b": b"\x00\xff"}
        assert cache.missing(["a", "c"]) == {"c"}
        assert "a" in cache
        assert "c" not in cache
        assert cache.get_many([]) == {}


def test_a_known_key_keeps_its_first_value(tmp_path: Path) -> None:
    with ContentCache(tmp_path / "cache.sqlite") as cache:
        cache.put_many({"a": b"one"})
        cache.put_many({"a": b"two", "b": b"three"})
        assert cache.get_many(["a", "b"]) == {"a": b"one", "b": b"three"}


def test_more_keys_are_looked_up_at_once_than_sqlite_has_parameters(tmp_path: Path) -> None:
    with ContentCache(tmp_path / "cache.sqlite") as cache:
        items = {str(number): b"x" for number in range(50_000)}
        cache.put_many(items)
        assert cache.get_many(list(items)) == items


KEEP_WRITING = """
import sys
from pathlib import Path
from tasks.index.cache import ContentCache
path, name = Path(sys.argv[1]), sys.argv[2]
with ContentCache(path) as cache:
    for batch in range(int(sys.argv[3])):
        cache.put_many({f"{name}-{batch}-{n}": f"{name}-{batch}-{n}".encode() * 100 for n in range(50)})
        print(batch, flush=True)
"""


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    command = [sys.executable, "-c", KEEP_WRITING, str(path)]
    writers = [subprocess.Popen([*command, name, "30"], stdout=subprocess.DEVNULL) for name in ("x", "y")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with ContentCache(path) as cache:
        assert not cache.missing([f"{name}-{b}-{n}" for name in "xy" for b in range(30) for n in range(50)])


@pytest.mark.parametrize("batches_before_the_kill", [1, 7, 40])
def test_a_killed_writer_loses_nothing_it_had_finished(tmp_path: Path, batches_before_the_kill: int) -> None:
    path = tmp_path / "cache.sqlite"
    command = [sys.executable, "-c", KEEP_WRITING, str(path), "x", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        done = [int(writer.stdout.readline()) for _ in range(batches_before_the_kill)]
        writer.send_signal(signal.SIGKILL)
    with ContentCache(path) as cache:
        keys = [f"x-{batch}-{n}" for batch in done for n in range(50)]
        assert cache.get_many(keys) == {key: key.encode() * 100 for key in keys}
        cache.put_many({"after": b"the kill"})
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counts = connection.execute("SELECT count(*) FROM content WHERE key LIKE 'x-%'").fetchone()
        assert counts[0] % 50 == 0, "a batch is kept whole or not at all"


def test_a_full_disk_is_a_clear_error_and_what_was_kept_stays(tmp_path: Path) -> None:
    with ContentCache(tmp_path / "cache.sqlite") as cache:
        cache.put_many({"kept": b"x" * 100})
        cache._connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(StoreError, match=r"cache\.sqlite.*full.*free disk space"):
            cache.put_many({"small": b"y", "large": b"z" * 100_000})
        assert cache.get_many(["kept", "small", "large"]) == {"kept": b"x" * 100}


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(StoreError, match=r"damaged.*move it away"):
        ContentCache(path)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be read or written"):
        ContentCache(tmp_path / "file" / "cache.sqlite")


def test_vectors_come_back_to_the_bit(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    with VectorCache(tmp_path, "model", 5) as cache:
        cache.add(["a", "b", "c"], vectors)
    with VectorCache(tmp_path, "model", 5) as cache:
        found = cache.get(["c", "a", "unknown"])
    assert found.keys() == {"a", "c"}
    assert np.array_equal(found["a"], vectors[0])
    assert np.array_equal(found["c"], vectors[2])


def test_another_embedder_has_its_own_vectors(tmp_path: Path) -> None:
    with VectorCache(tmp_path, "one", 2) as one, VectorCache(tmp_path, "two", 3) as two:
        one.add(["a"], np.ones((1, 2), dtype=np.float32))
        assert two.get(["a"]) == {}


def test_vectors_of_another_length_are_an_error_and_not_an_answer(tmp_path: Path) -> None:
    with VectorCache(tmp_path, "model", 2) as cache:
        cache.add(["a"], np.ones((1, 2), dtype=np.float32))
    with (
        VectorCache(tmp_path, "model", 3) as cache,
        pytest.raises(StoreError, match="vector of 2 numbers where 3 were expected"),
    ):
        cache.get(["a"])


def test_a_text_is_embedded_once_in_its_life(tmp_path: Path) -> None:
    embedder = LengthEmbedder()
    with VectorCache(tmp_path, "lengths", 2) as cache:
        found, embedded, reused = embed_once(["a b", "ccc", "a b"], ["1", "2", "1"], embedder, cache)
        assert found.tolist() == [[3, 2], [3, 1], [3, 2]]
        assert (embedded, reused) == (2, 1)
        found, embedded, reused = embed_once(["ccc", "new"], ["2", "3"], embedder, cache)
        assert found.tolist() == [[3, 1], [3, 1]]
        assert (embedded, reused) == (1, 1)
    assert sorted(embedder.asked) == ["a b", "ccc", "new"]


def test_nothing_to_embed_gives_no_vectors_of_the_right_width(tmp_path: Path) -> None:
    with VectorCache(tmp_path, "lengths", 2) as cache:
        found, embedded, reused = embed_once([], [], LengthEmbedder(), cache)
    assert found.shape == (0, 2)
    assert (embedded, reused) == (0, 0)


def test_what_was_embedded_before_a_crash_is_not_embedded_again(tmp_path: Path) -> None:
    texts = ["x" * (number + 1) for number in range(2 * STORE_EVERY + 1)]
    with VectorCache(tmp_path, "lengths", 2) as cache, pytest.raises(RuntimeError, match="killed"):
        embed_once(texts, texts, LengthEmbedder(fail_after=2), cache)
    with VectorCache(tmp_path, "lengths", 2) as cache:
        _, embedded, reused = embed_once(texts, texts, LengthEmbedder(), cache)
    assert (embedded, reused) == (1, 2 * STORE_EVERY)


@settings(max_examples=40, deadline=None)
@given(nights=st.lists(st.lists(st.text("ab ", min_size=1, max_size=6), max_size=12), max_size=6))
def test_vectors_are_those_of_the_texts_whatever_was_embedded_before(
    nights: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    embedder = LengthEmbedder()
    with VectorCache(tmp_path_factory.mktemp("vectors"), "lengths", 2) as cache:
        for texts in nights:
            found, embedded, reused = embed_once(texts, texts, embedder, cache)
            assert found.tolist() == [[len(text), len(text.split())] for text in texts]
            assert embedded + reused == len(texts)
    assert len(embedder.asked) == len(set(embedder.asked))
