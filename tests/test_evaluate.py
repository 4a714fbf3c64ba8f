"""Scores of a night's version and of the champion, on an index that two tenants share."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.reindex import reindex
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.evaluate import Evaluation, evaluate
from tasks.records import IndexManifest, Night
from tasks.registry.connection import connect
from tasks.registry.ledger import Pointers
from tasks.registry.pointers import pointers
from tasks.registry.runs import read_text
from tasks.registry.versions import load_manifest
from tests.homes import copy_home, home_after, use_home
from tests.nights import page

PAGES = {
    "north/tea": "Green tea is steeped at eighty degrees for two minutes.",
    "north/ferry": "The ferry to the island leaves at nine on weekdays only.",
    "south/tea": "Our green tea is steeped at seventy degrees for three minutes.",
    "south/ferry": "The ferry to the mainland leaves at ten on Sundays only.",
    "south/museum": "The museum is closed on Mondays.",
}
# both tenants ask the same, and only its own page is right for each: without the filter one of them is wrong
GOLDEN = [
    *(
        {"query": query, "relevant": [f"{tenant}/{name}.md"], "tenant": tenant}
        for tenant in ("north", "south")
        for name, query in (("tea", "how long does green tea steep"), ("ferry", "when does the ferry leave"))
    ),
    {"query": "when is the museum closed", "relevant": ["south/museum.md"]},
    {"query": "what is closed on Mondays", "relevant": ["south/museum.md", "south/ferry.md"]},
]
WITHOUT_MUSEUM = frozenset(f"{name}.md" for name in PAGES if name != "south/museum")


@dataclass(frozen=True)
class Shared:
    """The index after its first night. Its home is for copying."""

    home: Home
    config: ReindexConfig
    night: Night
    folder: Path


@pytest.fixture(scope="module")
def shared(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    folder = tmp_path_factory.mktemp("tenants")
    for name, text in PAGES.items():
        page(folder, name, text)
    golden = folder / "golden.jsonl"
    golden.write_text("".join(f"{json.dumps(line)}\n" for line in GOLDEN))
    sources = [{"name": name, "location": str(folder / name), "tenant": name} for name in ("north", "south")]
    config = ReindexConfig.model_validate(
        {"name": "docs", "sources": sources, "golden": str(golden), "gate": {"min_queries": 4}, "lock_minutes": 0}
    )
    home, night = home_after(config, folder / "home")
    return Shared(home, config, night, folder)


@pytest.fixture
def client(shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Of a copy of the home, for a test to change."""
    return connect(use_home(copy_home(shared.home, tmp_path / "home"), monkeypatch))


def evaluated(client: MlflowClient, config: ReindexConfig, documents: frozenset[str]) -> Evaluation:
    """The live version once more, as if the index held these documents."""
    return evaluate.fn(config, IndexManifest.from_json(load_manifest(client, "docs", "champion")), documents)


def test_every_golden_query_is_asked_as_its_tenant(shared: Shared, client: MlflowClient) -> None:
    assert shared.night.decision == "promote"
    by_query = json.loads(read_text(client, shared.night.run_id, "scores_by_query.json"))["candidate"]["values"]
    assert by_query["mrr"] == [1.0] * len(GOLDEN)
    report = read_text(client, shared.night.run_id, "report.md")
    for tenant in ("north", "south"):
        assert f"| tenant {tenant} | 2 | recall@1 | 1.000 |" in report


def test_queries_of_which_every_document_is_gone_are_left_out_and_noted(shared: Shared, client: MlflowClient) -> None:
    whole = evaluated(client, shared.config, frozenset(f"{name}.md" for name in PAGES))
    assert whole.notes == ()
    less = evaluated(client, shared.config, WITHOUT_MUSEUM)
    assert less.candidate
    assert len(less.candidate.queries) == len(GOLDEN) - 1
    assert less.notes == ("Golden queries left out, because they name only documents that are gone: 1.",)


def test_candidate_and_champion_are_scored_side_by_side_on_the_same_queries(
    shared: Shared, client: MlflowClient
) -> None:
    evaluation = evaluated(client, shared.config, WITHOUT_MUSEUM)
    assert evaluation.candidate
    assert evaluation.champion == evaluation.candidate
    assert evaluation.champion_number == 1
    assert evaluation.comparison
    assert evaluation.comparison.difference.mean == 0.0


def test_a_version_none_of_whose_queries_can_be_answered_has_no_scores(shared: Shared, client: MlflowClient) -> None:
    evaluation = evaluated(client, shared.config, frozenset({"south/elsewhere.md"}))
    assert (evaluation.candidate, evaluation.champion, evaluation.comparison) == (None, None, None)
    assert evaluation.notes[0].endswith(f"only documents that are gone: {len(GOLDEN)}.")


def test_beside_a_champion_that_cannot_be_scored_a_version_waits_for_a_person(
    shared: Shared, client: MlflowClient, tmp_path: Path
) -> None:
    [manifest] = (tmp_path / "home").glob("mlruns/artifacts/**/manifest.json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    page(shared.folder, "south/theatre", "The theatre opens in October.")
    night = reindex(shared.config)
    (shared.folder / "south" / "theatre.md").unlink()
    assert (night.decision, night.version, night.live) == ("hold", 2, 1)
    assert "The champion, version 1, could not be scored beside it." in night.reasons
    assert night.reasons[-1].startswith("champion not scored: docs v1 was written by a newer Tandem")
    assert night.champion_scores == {}
    assert pointers(client, "docs") == Pointers(champion=1, candidate=2)
