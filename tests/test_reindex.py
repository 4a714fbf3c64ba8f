"""The nightly re-index as an operator sees it: with the real Prefect, MLflow, LanceDB and the packaged model."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.reindex import reindex
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.index.store import IndexStore
from tasks.registry.connection import connect
from tasks.registry.ledger import history
from tasks.registry.pointers import pointers
from tasks.registry.runs import read_text
from tasks.registry.versions import list_versions, load_manifest
from tasks.serving import live_index
from tests.nights import golden_for_facts, page, write_facts

pytestmark = pytest.mark.usefixtures("prefect")
Configure = Callable[..., ReindexConfig]


@pytest.fixture
def config(configure: Configure, site: Path, tmp_path: Path) -> ReindexConfig:
    write_facts(site)
    return configure(golden=golden_for_facts(tmp_path), gate={"min_queries": 10})


def best(home: Home, query: str) -> str:
    return live_index("docs", home).search([query], k=1)[1][0][0].document


def lance_version(home: Home) -> int:
    client = connect(home)
    newest = list_versions(client, "docs")[-1]
    manifest = load_manifest(client, "docs", newest.number)
    return IndexStore.open(manifest["uri"], manifest["table"]).version


def test_the_first_night_goes_live_and_is_registered_with_all_that_explains_it(
    ready_home: Home, config: ReindexConfig
) -> None:
    night = reindex(config)
    assert night.decision == "promote"
    assert (night.version, night.live) == (1, 1)
    assert night.counts["documents added"] == 4
    assert night.scores["recall@5"] == 1.0
    client = connect(ready_home)
    manifest = load_manifest(client, "docs", "champion")
    store = IndexStore.open(manifest["uri"], manifest["table"])
    assert store.tags() == {"v1": manifest["lance_version"]}
    assert (manifest["documents"], manifest["passages"]) == (4, 4)
    assert "passed the gate" in read_text(client, night.run_id, "report.md")
    assert best(ready_home, "how heavy may a lorry be") == "docs/bridge.md"


def test_a_registered_version_answers_in_a_process_that_knows_nothing_of_the_repository(
    ready_home: Home, config: ReindexConfig, tmp_path: Path
) -> None:
    reindex(config)
    code = (
        "import json, mlflow; model = mlflow.pyfunc.load_model('models:/docs@champion');"
        "print(json.dumps(model.predict(['how long may I keep a book'], params={'k': 1})))"
    )
    environment = os.environ | {"MLFLOW_TRACKING_URI": ready_home.tracking_uri}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])[0][0]["document"] == "docs/library.md"


def test_a_night_on_which_nothing_changed_makes_no_version_of_anything(ready_home: Home, config: ReindexConfig) -> None:
    reindex(config)
    before = lance_version(ready_home)
    night = reindex(config)
    assert night.decision == "unchanged"
    assert (night.version, night.live) == (None, 1)
    assert lance_version(ready_home) == before
    assert len(list_versions(connect(ready_home), "docs")) == 1


def test_a_changed_night_embeds_only_what_is_new(ready_home: Home, config: ReindexConfig, site: Path) -> None:
    reindex(config)
    page(site, "tea", "Green tea is steeped at seventy degrees.")
    page(site, "museum", "The museum is closed on Mondays.")
    (site / "ferry.md").rename(site / "boats.md")
    night = reindex(config.model_copy(update={"max_deleted_share": 0.5}))
    counts = night.counts
    assert (counts["documents added"], counts["documents changed"], counts["documents moved"]) == (1, 1, 1)
    assert counts["documents converted"] == 2
    assert (counts["passages embedded"], counts["passages reused"]) == (2, 1)
    assert night.live == 2
    assert best(ready_home, "when does the ferry leave") == "docs/boats.md"


def test_a_damaged_night_is_rejected_and_the_live_version_answers_as_before(
    ready_home: Home, config: ReindexConfig, site: Path
) -> None:
    reindex(config)
    for path in site.glob("*.md"):
        path.write_text("# Sign in\n\nYour session has expired.\n")
    night = reindex(config)
    assert night.decision == "reject"
    assert (night.version, night.live) == (2, 1)
    assert pointers(connect(ready_home), "docs").candidate is None
    assert best(ready_home, "when does the ferry leave") == "docs/ferry.md"


def test_a_source_that_suddenly_yields_nothing_deletes_nothing_until_somebody_allows_it(
    ready_home: Home, config: ReindexConfig, site: Path
) -> None:
    reindex(config)
    for path in site.glob("*.md"):
        path.rename(path.with_suffix(".hidden"))
    narrowed = config.model_copy(
        update={"sources": (config.sources[0].model_copy(update={"include": ("*.md",)}),), "golden": None}
    )
    night = reindex(narrowed)
    assert night.decision == "hold"
    assert any("yields nothing" in reason for reason in night.reasons)
    assert best(ready_home, "when does the ferry leave") == "docs/ferry.md"
    page(site, "tea", "Green tea, as ever.")
    again = reindex(narrowed)
    assert again.decision == "hold"
    assert any("3 of 4 documents" in reason for reason in again.reasons)
    allowed = reindex(narrowed, allow_deletions=True)
    assert allowed.counts["documents deleted"] == 3
    assert allowed.counts["passages in the index"] == 1


def test_while_an_index_is_held_good_versions_wait_as_candidates(
    ready_home: Home, config: ReindexConfig, site: Path
) -> None:
    from tasks.promote import lift_hold, promote_by_hand, roll_back

    reindex(config)
    page(site, "museum", "The museum is closed on Mondays.")
    reindex(config)
    roll_back("docs", None, "ann", "wrong answers", False, ready_home)
    page(site, "theatre", "The theatre opens in October.")
    night = reindex(config)
    assert (night.decision, night.live) == ("hold", 1)
    assert pointers(connect(ready_home), "docs").candidate == 3
    lift_hold("docs", "ann", "mended", ready_home)
    promote_by_hand("docs", 3, "ann", "checked", ready_home)
    assert pointers(connect(ready_home), "docs").champion == 3


def test_a_new_chunking_cuts_again_without_converting_and_reuses_the_vectors_it_can(
    ready_home: Home, config: ReindexConfig
) -> None:
    reindex(config)
    chunking = config.chunking.model_copy(update={"max_tokens": 100})
    night = reindex(config.model_copy(update={"chunking": chunking}))
    assert night.counts["documents changed"] == 4
    assert night.counts["documents converted"] == 0
    assert (night.counts["passages embedded"], night.counts["passages reused"]) == (0, 4)


def test_a_file_that_breaks_keeps_its_last_good_passages_marked_stale(
    ready_home: Home, configure: Configure, site: Path, tmp_path: Path
) -> None:
    write_facts(site)
    config = configure(golden=golden_for_facts(tmp_path), gate={"max_quarantined": 0.5, "min_queries": 10})
    reindex(config)
    (site / "tea.md").write_bytes(bytes(range(256)) * 40)
    night = reindex(config)
    assert night.counts["documents with stale passages"] == 1
    assert [problem.document for problem in night.quarantined] == ["docs/tea.md"]
    found = live_index("docs", ready_home).search(["how long does green tea steep"], k=1)[1][0][0]
    assert (found.document, found.stale) == ("docs/tea.md", True)
    assert reindex(config).decision == "unchanged"
    page(site, "tea", "Green tea is steeped at eighty degrees.")
    assert reindex(config).counts["documents with stale passages"] == 0


def test_an_alias_moved_in_mlflow_is_followed_at_the_next_query_and_found_by_the_next_night(
    ready_home: Home, config: ReindexConfig, site: Path
) -> None:
    reindex(config)
    page(site, "museum", "The museum is closed on Mondays.")
    reindex(config)
    serving = live_index("docs", ready_home)
    assert serving.search(["when is the museum closed"], k=1)[1][0][0].document == "docs/museum.md"
    client = connect(ready_home)
    client.set_registered_model_alias("docs", "champion", "1")
    assert serving.search(["when is the museum closed"], k=1)[1][0][0].document != "docs/museum.md"
    assert reindex(config).live == 1
    found = history(client, "docs")[-1]
    assert (found.before, found.after, found.by) == (2, 1, "MLflow UI (found later)")
    assert "rolled back in MLflow" in (pointers(client, "docs").hold or "")
