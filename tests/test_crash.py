"""SIGKILL at every step of a night: the live version answers as before, and the next run puts things right."""

import signal
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flows.reindex import reindex
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.index.embedding import embedder_fingerprint
from tasks.index.store import IndexStore
from tasks.records import Passage
from tasks.registry import ledger
from tasks.registry.connection import connect
from tasks.registry.pointers import pointers, settle
from tasks.registry.runs import running
from tasks.registry.versions import list_versions, load_manifest
from tasks.serving import live_index, prove
from tests.homes import copy_home, environment_of, home_after, use_home
from tests.killed_night import PASSAGES_BETWEEN_WRITES, killed_night
from tests.nights import config_over_facts, page, quick_night, rows_of, write_facts
from tests.preloaded import run_preloaded
from tests.registry_fixtures import empty_home

pytestmark = pytest.mark.usefixtures("prefect")
NEW_PAGES = 12
QUERIES = ["when does the ferry leave", "how heavy may a lorry be", "what is kept in room 7"]

# where the process dies, how many of the new passages were embedded by then, and the versions that exist by then
STORE, MLFLOW = "tasks.index.store:IndexStore", "mlflow:MlflowClient"
POINTERS = "mlflow.tracking._model_registry.client:ModelRegistryClient"
POINTS = [
    ("tasks.index.cache:VectorCache.add", "after", 2, 2 * PASSAGES_BETWEEN_WRITES, 1),
    (f"{STORE}.replace", "before", 1, NEW_PAGES, 1),
    (f"{STORE}.replace", "after", 1, NEW_PAGES, 1),
    (f"{STORE}.maintain", "after", 1, NEW_PAGES, 1),
    (f"{STORE}.tag", "after", 1, NEW_PAGES, 1),
    (f"{MLFLOW}.create_model_version", "before", 1, NEW_PAGES, 1),
    (f"{MLFLOW}.create_model_version", "after", 1, NEW_PAGES, 2),
    (f"{POINTERS}.set_registered_model_alias", "before", 1, NEW_PAGES, 2),
    (f"{POINTERS}.set_registered_model_alias", "after", 1, NEW_PAGES, 2),
]
# after what an index's very first night is killed, and the versions that exist by then; none can be live
FIRST_POINTS: list[tuple[str, list[int]]] = [
    (f"{STORE}.open_or_create", []),
    (f"{MLFLOW}.create_model_version", [1]),
]


@dataclass(frozen=True)
class Story:
    """An index that is live over four pages, and the pages of the night that is going to be killed."""

    home: Home
    config: ReindexConfig
    table: str
    answers: list[list[Passage]]
    """Of the live version."""
    whole: pa.Table
    """The rows of an index built from nothing over all pages."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, prefect: None) -> Story:
    folder = tmp_path_factory.mktemp("story")
    config = config_over_facts(folder)
    home, first = home_after(config, folder / "home")
    assert first.live == 1
    with pytest.MonkeyPatch.context() as patch:
        use_home(home, patch)
        answers = ask(home)
        for number in range(NEW_PAGES):
            page(folder / "site", f"room-{number}", f"In room {number} there are {number + 20} chairs and a piano.")
        fresh = use_home(Home(folder / "fresh"), patch)
        quick_night(config, fresh)
    table = f"docs-{embedder_fingerprint(config.embedder, home)}"
    return Story(home, config, table, answers, rows_of(table, fresh))


def ask(home: Home) -> list[list[Passage]]:
    return live_index("docs", home).search(QUERIES, k=3)[1]


@pytest.mark.parametrize(
    ("point", "when", "count", "embedded", "versions"), POINTS, ids=[f"{p.split('.')[-1]}-{w}" for p, w, *_ in POINTS]
)
def test_a_night_killed_at_any_step_costs_time_and_nothing_else(
    story: Story,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    when: str,
    count: int,
    embedded: int,
    versions: int,
) -> None:
    home = use_home(copy_home(story.home, tmp_path / "home"), monkeypatch)
    kill(story.config, home, tmp_path, point, when, count)

    client = connect(home)
    live = pointers(client, "docs").champion
    assert live == (2 if (point, when) == (f"{POINTERS}.set_registered_model_alias", "after") else 1)
    if live == 1:
        assert ask(home) == story.answers
    known = [version.number for version in list_versions(client, "docs")]
    assert known == list(range(1, versions + 1))
    for number in known:
        prove(load_manifest(client, "docs", number))

    night = reindex(story.config)
    assert night.counts.get("passages embedded", 0) == NEW_PAGES - embedded
    check_all_is_well(story, home, [1, 2])


@pytest.mark.parametrize(("point", "versions"), FIRST_POINTS, ids=[p.split(".")[-1] for p, _ in FIRST_POINTS])
def test_a_first_night_that_is_killed_is_finished_by_the_next(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, versions: list[int]
) -> None:
    home = use_home(copy_home(empty_home(), tmp_path / "home"), monkeypatch)
    kill(story.config, home, tmp_path, point, "after", 1)
    client = connect(home)
    assert [version.number for version in list_versions(client, "docs")] == versions
    assert pointers(client, "docs").champion is None
    night = reindex(story.config)
    assert night.counts.get("passages embedded", 0) == 0
    check_all_is_well(story, home, [1])


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_night_killed_as_it_marks_what_it_cannot_read_keeps_the_last_good_passages(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    home = use_home(copy_home(story.home, tmp_path / "home"), monkeypatch)
    passages = passages_of("docs/library.md", story, home)
    site = tmp_path / "site"
    write_facts(site)
    page(site, "museum", "The museum is closed on Mondays.")
    (site / "library.md").write_bytes(b"\0")
    source = story.config.sources[0].model_copy(update={"location": str(site)})
    gate = story.config.gate.model_copy(update={"max_quarantined": 1})
    config = story.config.model_copy(update={"sources": (source,), "gate": gate})
    kill(config, home, tmp_path, f"{STORE}.mark_stale", when, 1)
    assert pointers(connect(home), "docs").champion == 1
    assert ask(home) == story.answers

    night = reindex(config)
    assert (night.live, night.counts.get("passages embedded", 0)) == (2, 0)
    state = IndexStore.open(home.lancedb, story.table).documents()["docs/library.md"]
    assert (state.passages, state.stale, state.reason) == (1, True, "not text: it holds binary data")
    assert passages_of("docs/library.md", story, home) == passages
    assert running(connect(home), "docs") == []
    assert reindex(config).decision == "unchanged"


def passages_of(document: str, story: Story, home: Home) -> list[dict[str, Any]]:
    store = IndexStore.open(home.lancedb, story.table)
    return store.rows(["id", "text", "vector"], f"document = '{document}'").to_pylist()


def check_all_is_well(story: Story, home: Home, versions: list[int]) -> None:
    """The last of these versions is live, holds what an index built from nothing would, and nothing is left over."""
    client = connect(home)
    before, live = [None, *versions][-2:]
    now = pointers(client, "docs")
    assert (now.champion, now.candidate, now.previous, now.hold) == (live, None, before, None)
    assert [version.number for version in list_versions(client, "docs")] == versions
    prove(load_manifest(client, "docs", "champion"))
    assert running(client, "docs") == []
    moves = [(move.before, move.after) for move in ledger.history(client, "docs") if move.what == "champion"]
    assert moves == list(pairwise([None, *versions]))
    assert settle(client, "docs") == []
    assert rows_of(story.table, home).equals(story.whole)
    assert set(IndexStore.open(home.lancedb, story.table).tags()) == {f"v{number}" for number in versions}
    assert ask(home)[2][0].document == "docs/room-7.md"
    assert reindex(story.config).decision == "unchanged"


def kill(config: ReindexConfig, home: Home, folder: Path, point: str, when: str, count: int) -> None:
    file, errors = folder / "config.json", folder / "errors"
    file.write_text(config.model_dump_json())
    night = (killed_night, file, point, when, count)
    status = run_preloaded(*night, environment=environment_of(home), errors=errors, timeout=200)
    assert status == -signal.SIGKILL, errors.read_text()
