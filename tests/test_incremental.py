"""However an index came to be, it equals one that is built from nothing over the same documents."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import git
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.config.index import EmbedderConfig, ReindexConfig
from tasks.config.settings import Home
from tasks.documents.repository import BlobReader
from tasks.index.embedding import Embedder, embedder_fingerprint, load_embedder
from tasks.index.search import Filters, IndexReader, Mode
from tasks.index.store import IndexStore
from tasks.records import SourceFile
from tests.nights import FACTS, golden_for_facts, page, quick_night, rows_of, write_facts

Configure = Callable[..., ReindexConfig]
Steps = list[tuple[str, int, int]]

NAMES = ["north/plain", "north/deep/hill", "north/river", "south/plain", "south/deep/hill", "south/lake"]
WORDS = ["tea", "bridge", "library", "ferry", "museum", "piano", "garden", "kettle", "lorry", "market", "bell"]
QUERIES = ["the ferry in winter", "garden", "Kettle and bell", "what is at the market", "nothing of the kind"]
MODES: tuple[Mode, ...] = ("vector", "text", "hybrid")

# a step of a night: what happens to which page, and the seed of its new content or the number of its new name
STEPS = st.tuples(
    st.sampled_from(["write", "write", "retitle", "rename", "delete"]),
    st.integers(0, len(NAMES) - 1),
    st.integers(0, 9),
)
NIGHTS = st.lists(st.lists(STEPS, min_size=1, max_size=5), min_size=2, max_size=4)
MANY = [[("write", number, number) for number in range(len(NAMES))]]


@pytest.fixture
def embedder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Embedder:
    """The packaged model, loaded once for all nights of a test."""
    loaded = load_embedder(EmbedderConfig(), Home(tmp_path / "model"))
    monkeypatch.setattr("tasks.prepare.load_embedder", lambda *_: loaded)
    return loaded


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights=NIGHTS)
@example(nights=[*MANY, [("rename", 0, 1), ("delete", 3, 0)], [("write", 3, 3), ("retitle", 2, 5), ("rename", 1, 4)]])
@example(nights=[*MANY, [("delete", n, 0) for n in range(5)], [("write", n, n + 1) for n in range(5)]])
def test_after_any_nights_the_index_equals_one_built_from_nothing(
    home: Home, embedder: Embedder, nights: list[Steps]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder, "site")
        page(site, "south/index", "This page is always there.")
        config = ReindexConfig.model_validate(
            {
                "name": "docs",
                "sources": [
                    {"name": "docs", "location": str(site), "tenant_pattern": "^(?P<tenant>[^/]+)/", "language": "en"}
                ],
                "max_deleted_share": 1,
                "chunking": {"max_tokens": 40, "overlap_tokens": 8},
                "parsing": {"workers": 1},
            }
        )
        shutil.rmtree(home.root)
        for steps in nights:
            for step in steps:
                edit(site, *step)
            quick_night(config, home)
        grown = look(config, home, embedder)
        home.root.rename(Path(folder, "grown"))
        quick_night(config, home)
        assert grown == look(config, home, embedder)


def edit(site: Path, what: str, number: int, seed: int) -> None:
    path = site / f"{NAMES[number]}.md"
    match what:
        case "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content(seed))
        case "retitle" if path.exists():
            path.write_text(path.read_text().replace("title: ", f"title: new {seed} "))
        case "rename" if path.exists():
            target = site / f"{NAMES[seed % len(NAMES)]}.md"
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        case "delete":
            path.unlink(missing_ok=True)


def content(seed: int) -> str:
    """A page of several sections; seeds that are near share some of them, and seed 0 is an empty page."""
    if seed == 0:
        return ""
    sections = [
        f"## About the {WORDS[(seed + number) % len(WORDS)]}\n\n"
        + " ".join(
            f"The {WORDS[(seed + number + word) % len(WORDS)]} is near the {WORDS[(seed * word) % len(WORDS)]}."
            for word in range(2, 9)
        )
        for number in range(seed % 4 + 1)
    ]
    front = f"---\ntitle: page {seed}\ndate: 2026-0{seed}-01\ntags: [{WORDS[seed]}]\n---\n"
    return front + "\n\n".join(sections) + "\n"


def look(config: ReindexConfig, home: Home, embedder: Embedder) -> tuple[object, object]:
    """All rows with their vectors, and what searches find, with scores."""
    table = f"docs-{embedder_fingerprint(config.embedder, home)}"
    reader = IndexReader(IndexStore.open(home.lancedb, table), embedder, config.search)
    found = {
        (mode, tenant): [
            [(passage.id, passage.score) for passage in passages]
            for passages in reader.search(QUERIES, k=8, mode=mode, filters=Filters(tenant=tenant))
        ]
        for mode in MODES
        for tenant in (None, "north")
    }
    return rows_of(table, home).to_pylist(), found


def test_a_folder_a_repository_and_a_url_are_mixed_in_one_index_with_two_tenants(
    home: Home, embedder: Embedder, site: Path, tmp_path: Path
) -> None:
    write_facts(site)
    repository = git.Repo.init(tmp_path / "repository")
    commit(repository, "guide", "The museum is closed on Mondays.")
    memory = fsspec.filesystem("memory")
    memory.pipe("/notes/one.md", b"# One\n\nThe piano is tuned in spring.\n")
    other = tmp_path / "other"
    page(other, "two", "The theatre opens in October.")
    config = ReindexConfig.model_validate(
        {
            "name": "docs",
            "sources": [
                {"name": "docs", "location": str(site), "tenant": "north"},
                {"name": "code", "kind": "git", "location": str(tmp_path / "repository"), "tenant": "south"},
                {"name": "notes", "kind": "url", "location": "memory://notes", "tenant": "south"},
                {"name": "files", "kind": "url", "location": f"file://{other}"},
            ],
        }
    )
    try:
        _, first = quick_night(config, home)
        assert (first.embedded, len(first.failed)) == (7, 0)
        _, quiet = quick_night(config, home)
        assert (quiet.parsed, quiet.embedded, quiet.reused) == (0, 0, 0)
        page(site, "tea", "Green tea is steeped at seventy degrees.")
        commit(repository, "guide", "The museum is closed on Tuesdays.")
        memory.pipe("/notes/one.md", b"# One\n\nThe piano is tuned in autumn, as it was.\n")
        page(other, "two", "The theatre opens in November, at last.")
        work, second = quick_night(config, home)
        assert (second.parsed, second.embedded) == (4, 4)
    finally:
        memory.rm("/notes", recursive=True)
    rows = rows_of(work.table, home).to_pylist()
    assert {row["document"]: row["tenant"] for row in rows} == {
        "docs/bridge.md": "north",
        "docs/ferry.md": "north",
        "docs/library.md": "north",
        "docs/tea.md": "north",
        "code/guide.md": "south",
        "notes/one.md": "south",
        "files/two.md": None,
    }
    reader = IndexReader(IndexStore.open(home.lancedb, work.table), embedder, config.search)
    found = reader.search(["when is the museum closed"], k=9, filters=Filters(tenant="south"))[0]
    assert [passage.document for passage in found] == ["code/guide.md", "notes/one.md"]
    assert "Tuesdays" in found[0].text


def test_of_a_repository_only_blobs_never_seen_before_are_read(
    home: Home, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    blob = BlobReader.read

    def noted(self: BlobReader, file: SourceFile) -> bytes:
        read.append(file.path)
        return blob(self, file)

    monkeypatch.setattr(BlobReader, "read", noted)
    repository = git.Repo.init(tmp_path / "repository")
    for name, fact in FACTS.items():
        commit(repository, name, fact)
    source = {"name": "code", "kind": "git", "location": str(repository.working_dir)}
    config = ReindexConfig.model_validate({"name": "docs", "sources": [source]})
    quick_night(config, home)
    assert sorted(read) == ["bridge.md", "ferry.md", "library.md", "tea.md"]
    read.clear()
    repository.git.mv("ferry.md", "boats.md")
    commit(repository, "tea", "Green tea is steeped at seventy degrees.")
    work, _ = quick_night(config, home)
    assert [old for old, _ in work.changes.moved] == ["code/ferry.md"]
    assert read == ["tea.md"]
    read.clear()
    quick_night(config, home)
    assert read == []


def test_a_file_over_the_size_limit_is_set_aside_until_the_limit_is_raised(
    home: Home, embedder: Embedder, configure: Configure, site: Path
) -> None:
    write_facts(site)
    page(site, "archive", "Another line of old news. " * 100)  # 2.6 kB
    narrow = configure(parsing={"max_file_mb": 0.002})
    _, first = quick_night(narrow, home)
    [problem] = first.failed
    assert problem.document == "docs/archive.md"
    assert "more than the 0.002 MB allowed" in problem.reason
    assert (first.parsed, first.embedded) == (4, 4)
    quiet, _ = quick_night(narrow, home)
    assert quiet.changes.nothing
    work, raised = quick_night(configure(), home)
    assert (raised.parsed, raised.failed) == (1, ())
    assert rows_of(work.table, home)["document"].to_pylist().count("docs/archive.md") == raised.embedded + raised.reused


def commit(repository: git.Repo, name: str, text: str) -> None:
    page(Path(repository.working_dir), name, text)
    repository.index.add([f"{name}.md"])
    author = git.Actor("Ann", "ann@example.org")
    repository.index.commit(f"write {name}", author=author, committer=author)


class TinyEndpoint(BaseHTTPRequestHandler):
    """Speaks OpenAI's embeddings protocol: eight numbers a text, one for each eighth of all words."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        data = [
            {"object": "embedding", "index": index, "embedding": self._embed(text)}
            for index, text in enumerate(asked["input"])
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        body = json.dumps({"object": "list", "data": data, "model": asked["model"], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _embed(self, text: str) -> list[float]:
        vector = [0.01] * 8
        for word in text.lower().split():
            vector[hashlib.sha256(word.strip(".?").encode()).digest()[0] % 8] += 1
        return vector

    def log_message(self, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("OPENAI_API_KEY", "any word")
    server = ThreadingHTTPServer(("127.0.0.1", 0), TinyEndpoint)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("prefect")
def test_another_embedder_builds_beside_the_old_index_which_can_be_rolled_back_to(
    ready_home: Home, configure: Configure, site: Path, tmp_path: Path, endpoint: str
) -> None:
    from flows.reindex import reindex
    from tasks.promote import roll_back
    from tasks.registry.connection import connect
    from tasks.registry.versions import load_manifest
    from tasks.serving import live_index

    write_facts(site)
    config = configure(golden=golden_for_facts(tmp_path), gate={"min_queries": 10, "max_loss": 1, "confidence": 0.999})
    reindex(config)
    live = live_index("docs", ready_home)
    before = live.search(["when does the ferry leave"])[1]
    embedder = {"kind": "openai", "model": "tiny", "base_url": endpoint}
    night = reindex(ReindexConfig.model_validate(config.model_dump() | {"embedder": embedder}))
    assert night.live == 2
    counts = night.counts
    assert (counts["documents converted"], counts["passages embedded"], counts["passages reused"]) == (0, 4, 0)
    old, new = (load_manifest(connect(ready_home), "docs", number) for number in (1, 2))
    assert (old["dimension"], new["dimension"]) == (384, 8)
    assert old["table"] != new["table"]
    assert live.search(["when does the ferry leave"])[0].tag == "v2"
    assert reindex(ReindexConfig.model_validate(config.model_dump() | {"embedder": embedder})).decision == "unchanged"
    roll_back("docs", None, "ann", "worse", False, ready_home)
    manifest, after = live.search(["when does the ferry leave"])
    assert (manifest.tag, after) == ("v1", before)
