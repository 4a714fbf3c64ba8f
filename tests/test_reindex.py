"""The nightly re-index as an operator sees it: with the real Prefect, MLflow, LanceDB and the packaged model.

The first night is made once; every test goes on from a copy of what it left, with its pages as they were then.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from mlflow import MlflowClient

from flows.reindex import reindex
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.headline import today
from tasks.index.search import IndexReader, LiveIndex
from tasks.index.store import IndexStore
from tasks.records import Night
from tasks.registry.connection import connect
from tasks.registry.ledger import history
from tasks.registry.pointers import pointers
from tasks.registry.runs import read_text
from tasks.registry.versions import list_versions, load_manifest
from tasks.serving import live_index, reader_of
from tests.artifacts import artifacts_of
from tests.homes import copy_home, home_after, use_home
from tests.nights import FACTS, config_over_facts, page, write_facts

ROOT = Path(__file__).resolve().parents[1]
QUERIES = 20


@dataclass(frozen=True)
class Begun:
    """An index of four pages after its first night. Its home and its pages are for copying."""

    home: Home
    config: ReindexConfig
    night: Night


@pytest.fixture(scope="module")
def begun(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> Begun:
    folder = tmp_path_factory.mktemp("begun")
    config = config_over_facts(folder, max_quarantined=0.5)
    home, night = home_after(config, folder / "home")
    return Begun(home, config, night)


@pytest.fixture
def live_home(begun: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A copy, for a test to change, of a home in which version 1 is live."""
    return use_home(copy_home(begun.home, tmp_path / "home"), monkeypatch)


@pytest.fixture
def config(begun: Begun) -> ReindexConfig:
    return begun.config


@pytest.fixture
def site(config: ReindexConfig) -> Path:
    """The four pages as the first night found them. They keep their place, which is a part of the configuration."""
    folder = Path(config.sources[0].location)
    shutil.rmtree(folder)
    folder.mkdir()
    write_facts(folder)
    return folder


@pytest.fixture
def client(live_home: Home) -> MlflowClient:
    return connect(live_home)


def best(index: LiveIndex | IndexReader, query: str) -> str:
    found = index.search([query], k=1)
    passages = found[1] if isinstance(index, LiveIndex) else found
    return passages[0][0].document


def lance_version(client: MlflowClient) -> int:
    manifest = load_manifest(client, "docs", list_versions(client, "docs")[-1].number)
    return IndexStore.open(manifest["uri"], manifest["table"]).version


def test_the_first_night_goes_live(begun: Begun, client: MlflowClient, live_home: Home) -> None:
    night = begun.night
    assert night.decision == "promote"
    assert (night.version, night.live) == (1, 1)
    assert night.counts["documents added"] == 4
    assert night.scores["recall@5"] == 1.0
    manifest = load_manifest(client, "docs", "champion")
    store = IndexStore.open(manifest["uri"], manifest["table"])
    assert store.tags() == {"v1": manifest["lance_version"]}
    assert (manifest["documents"], manifest["passages"]) == (4, 4)
    assert best(live_index("docs", live_home), "how heavy may a lorry be") == "docs/bridge.md"


def test_a_version_is_registered_with_all_that_explains_it(begun: Begun, client: MlflowClient) -> None:
    run = client.get_run(begun.night.run_id)
    assert run.info.status == "FINISHED"
    settings = {key: run.data.params[key] for key in ("chunking.max_tokens", "gate.min_queries", "golden")}
    assert settings == {"chunking.max_tokens": "200", "gate.min_queries": "10", "golden": begun.config.golden}
    measured = {key: run.data.metrics[key] for key in ("recall_at_5", "count_documents added")}
    assert measured == {"recall_at_5": 1.0, "count_documents added": 4.0}
    assert run.data.metrics["seconds_prepare"] > 0
    version = client.get_model_version("docs", "1")
    assert version.run_id == begun.night.run_id
    made_of = f"4 documents, {begun.night.counts['passages in the index']} passages"
    line = f"Passed the gate. ndcg@10 1.000 (the first). {made_of}. {today()}.\n\n# docs: Version 1"
    assert version.description.startswith(line)
    assert sorted(version.tags)[:5] == ["git.commit", "made of", "made on", "result", "score"]
    assert (version.tags["result"], version.tags["score"]) == ("passed the gate", "ndcg@10 1.000 (the first)")
    assert version.tags["tandem.verdict"] == run.data.tags["tandem.verdict"] == "promote"
    assert version.tags["git.commit"] == run.data.tags["git.commit"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.data.tags["git.commit"].removesuffix("-dirty") == head.stdout.strip()


def test_the_run_of_a_version_keeps_its_report_configuration_verdict_and_every_querys_score(
    begun: Begun, client: MlflowClient
) -> None:
    run_id = begun.night.run_id
    kept = {artifact.path for artifact in client.list_artifacts(run_id)}
    texts = {"report.md", "config.yaml", "verdict.json", "scores_by_query.json"}
    assert kept == texts | {"golden.jsonl", "scores.png", "model"}
    assert "passed the gate" in read_text(client, run_id, "report.md")
    assert ReindexConfig(**yaml.safe_load(read_text(client, run_id, "config.yaml"))) == begun.config
    verdict = json.loads(read_text(client, run_id, "verdict.json"))
    assert (verdict["decision"], tuple(verdict["reasons"])) == ("promote", begun.night.reasons)
    scores = json.loads(read_text(client, run_id, "scores_by_query.json"))
    assert scores.keys() == {"candidate"}
    assert len(set(scores["candidate"]["queries"])) == QUERIES
    assert scores["candidate"]["values"]["recall@5"] == [1.0] * QUERIES


def test_the_prefect_run_shows_the_report_and_mlflow_links_to_the_prefect_run(
    begun: Begun, client: MlflowClient
) -> None:
    tags = client.get_run(begun.night.run_id).data.tags
    flow_run = tags["prefect.flow_run_id"]
    assert tags["prefect.flow_run"].startswith("http")
    assert tags["prefect.flow_run"].endswith(f"/flow-run/{flow_run}")
    shown = artifacts_of(UUID(flow_run))
    report = shown["reindex-docs"]
    assert report.startswith("# docs: Version 1 passed the gate\n")
    assert "Live now: version 1." in report
    assert "| documents added | 4 |" in report
    assert f"run `{begun.night.run_id}`" in report
    assert shown["prepare-docs"] == 100.0


def test_a_registered_version_answers_in_a_process_that_knows_nothing_of_the_repository(
    live_home: Home, tmp_path: Path
) -> None:
    code = (
        "import json, mlflow; model = mlflow.pyfunc.load_model('models:/docs@champion');"
        "print(json.dumps(model.predict(['how long may I keep a book'], params={'k': 1})))"
    )
    # the package as another machine installs it: nothing leads from there to the repository or to this home
    shutil.copytree(ROOT / "tasks", tmp_path / "installed" / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    ours = ("TANDEM_HOME", "PREFECT_HOME", "PREFECT_API_URL")
    environment = {name: value for name, value in os.environ.items() if name not in ours} | {
        "MLFLOW_TRACKING_URI": live_home.tracking_uri,
        "PYTHONPATH": str(tmp_path / "installed"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])[0][0]["document"] == "docs/library.md"


def test_a_night_on_which_nothing_changed_makes_no_version_of_anything(
    client: MlflowClient, config: ReindexConfig, site: Path
) -> None:
    before = lance_version(client)
    night = reindex(config)
    assert night.decision == "unchanged"
    assert (night.version, night.live) == (None, 1)
    assert lance_version(client) == before
    assert len(list_versions(client, "docs")) == 1


def test_a_changed_night_embeds_only_what_is_new(live_home: Home, config: ReindexConfig, site: Path) -> None:
    page(site, "tea", "Green tea is steeped at seventy degrees.")
    page(site, "museum", "The museum is closed on Mondays.")
    (site / "ferry.md").rename(site / "boats.md")
    night = reindex(config.model_copy(update={"max_deleted_share": 0.5}))
    counts = night.counts
    assert (counts["documents added"], counts["documents changed"], counts["documents moved"]) == (1, 1, 1)
    assert counts["documents converted"] == 2
    assert (counts["passages embedded"], counts["passages reused"]) == (2, 1)
    assert night.live == 2
    assert best(live_index("docs", live_home), "when does the ferry leave") == "docs/boats.md"


def test_a_damaged_night_is_rejected_for_its_loss_and_the_live_version_answers_as_before(
    begun: Begun, client: MlflowClient, live_home: Home, config: ReindexConfig, site: Path
) -> None:
    for path in site.glob("*.md"):
        path.write_text("# Sign in\n\nYour session has expired.\n")
    night = reindex(config)
    assert night.decision == "reject"
    assert (night.version, night.live) == (2, 1)
    assert night.reasons[0].startswith("A loss of more than 0.020 that is no noise: ndcg@10 ")
    assert "champion (version 1)" in night.reasons[0]
    assert night.champion_scores == begun.night.scores
    assert night.scores["ndcg@10"] < night.champion_scores["ndcg@10"]
    by_query = json.loads(read_text(client, night.run_id, "scores_by_query.json"))
    assert by_query["champion"]["values"]["recall@5"] == [1.0] * QUERIES
    assert pointers(client, "docs").candidate is None
    assert best(live_index("docs", live_home), "when does the ferry leave") == "docs/ferry.md"


def test_a_source_that_suddenly_yields_nothing_deletes_nothing_until_somebody_allows_it(
    live_home: Home, config: ReindexConfig, site: Path
) -> None:
    for path in site.glob("*.md"):
        path.rename(path.with_suffix(".hidden"))
    narrowed = config.model_copy(
        update={"sources": (config.sources[0].model_copy(update={"include": ("*.md",)}),), "golden": None}
    )
    night = reindex(narrowed)
    assert night.decision == "hold"
    assert any("yields nothing" in reason for reason in night.reasons)
    assert best(live_index("docs", live_home), "when does the ferry leave") == "docs/ferry.md"
    page(site, "tea", "Green tea, as ever.")
    again = reindex(narrowed)
    assert again.decision == "hold"
    assert any("3 of 4 documents" in reason for reason in again.reasons)
    allowed = reindex(narrowed, allow_deletions=True)
    assert allowed.counts["documents deleted"] == 3
    assert allowed.counts["passages in the index"] == 1


def test_a_source_that_fails_on_a_later_night_keeps_its_passages_and_the_report_says_why(
    client: MlflowClient, live_home: Home, config: ReindexConfig, site: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    page(notes, "piano", "The piano is tuned in spring.")
    settings = config.model_dump()
    sources = [*settings["sources"], {"name": "notes", "location": str(notes)}]
    both = ReindexConfig.model_validate(settings | {"sources": sources})
    assert reindex(both).live == 2
    notes.rename(tmp_path / "elsewhere")
    page(site, "museum", "The museum is closed on Mondays.")
    night = reindex(both)
    assert (night.decision, night.version, night.live) == ("hold", 3, 2)
    gone = night.counts["documents deleted"] + night.counts["documents gone but kept"]
    assert (night.counts["documents added"], gone) == (1, 0)
    assert night.reasons[0].startswith("source notes failed: ")
    assert f"{notes} does not exist" in night.reasons[0]
    assert f"- {night.reasons[0]}\n" in read_text(client, night.run_id, "report.md")
    for index in (live_index("docs", live_home), reader_of("docs", 3, live_home)):
        assert best(index, "when is the piano tuned") == "notes/piano.md"


def test_while_an_index_is_held_good_versions_wait_and_no_text_is_embedded_a_second_time(
    client: MlflowClient, live_home: Home, config: ReindexConfig, site: Path
) -> None:
    from tasks.promote import lift_hold, promote_by_hand, roll_back

    page(site, "tea", "Green tea is steeped at seventy degrees.")
    assert reindex(config).live == 2
    roll_back("docs", None, "ann", "wrong answers", False, live_home)
    page(site, "bridge", "The old bridge carries no lorry at all.")
    night = reindex(config)
    assert (night.decision, night.live) == ("hold", 1)
    assert (night.counts["passages embedded"], night.counts["passages reused"]) == (1, 0)
    assert pointers(client, "docs").candidate == 3
    page(site, "tea", FACTS["tea"])
    restored = reindex(config)
    assert restored.counts["documents changed"] == 1
    assert (restored.counts["passages embedded"], restored.counts["passages reused"]) == (0, 1)
    assert pointers(client, "docs").candidate == 4
    lift_hold("docs", "ann", "mended", live_home)
    promote_by_hand("docs", 4, "ann", "checked", live_home)
    assert pointers(client, "docs").champion == 4


def test_a_new_chunking_cuts_again_without_converting_and_reuses_the_vectors_it_can(
    live_home: Home, config: ReindexConfig, site: Path
) -> None:
    rules = (f"Rule {n} is that visitor {n} waits in room {n} for guide {n}." for n in range(33))
    page(site, "rules", " ".join(rules))
    before = reindex(config).counts
    chunking = config.chunking.model_copy(update={"max_tokens": 40})
    counts = reindex(config.model_copy(update={"chunking": chunking})).counts
    assert counts["documents changed"] == 5
    assert counts["documents converted"] == 0
    # the four short pages fit either limit
    assert counts["passages reused"] >= 4
    assert counts["passages embedded"] > before["passages in the index"] - 4
    assert counts["passages in the index"] == counts["passages reused"] + counts["passages embedded"]
    assert counts["passages in the index"] > 3 * before["passages in the index"]


def test_a_file_that_breaks_keeps_its_last_good_passages_marked_stale(
    live_home: Home, config: ReindexConfig, site: Path
) -> None:
    (site / "tea.md").write_bytes(bytes(range(256)) * 40)
    night = reindex(config)
    assert night.counts["documents with stale passages"] == 1
    assert [problem.document for problem in night.quarantined] == ["docs/tea.md"]
    found = live_index("docs", live_home).search(["how long does green tea steep"], k=1)[1][0][0]
    assert (found.document, found.stale) == ("docs/tea.md", True)
    assert reindex(config).decision == "unchanged"
    page(site, "tea", "Green tea is steeped at eighty degrees.")
    assert reindex(config).counts["documents with stale passages"] == 0


def test_an_alias_moved_in_mlflow_is_followed_at_the_next_query_and_found_by_the_next_night(
    client: MlflowClient, live_home: Home, config: ReindexConfig, site: Path
) -> None:
    page(site, "museum", "The museum is closed on Mondays.")
    reindex(config)
    serving = live_index("docs", live_home)
    assert best(serving, "when is the museum closed") == "docs/museum.md"
    client.set_registered_model_alias("docs", "champion", "1")
    assert best(serving, "when is the museum closed") != "docs/museum.md"
    assert reindex(config).live == 1
    found = history(client, "docs")[-1]
    assert (found.before, found.after, found.by) == (2, 1, "MLflow UI (found later)")
    assert "rolled back in MLflow" in (pointers(client, "docs").hold or "")
