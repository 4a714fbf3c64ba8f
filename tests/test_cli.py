"""The command as a person or a script meets it."""

import json
import resource
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.config.services import read_services
from tasks.config.settings import Home
from tasks.index.store import IndexStore
from tasks.registry.connection import connect
from tasks.registry.runs import read_metrics
from tasks.registry.versions import get, load_manifest
from tests.command import Tandem, golden_of_nights, write_config
from tests.nights import FACTS, page

TANDEM = Path(sys.executable).with_name("tandem")
TEA = "how long does green tea steep"
BREWING = """---
title: Green tea at home
date: 2026-03-01
tags: [drinks, evening]
---
# Brewing

A kettle, a pot and a little patience are all you need for it.

## Water

Green tea is steeped at eighty degrees for two minutes.

## Cups

Warm the cups with hot water first, then pour that water away.
"""


@pytest.fixture
def home(home_of_nights: Home) -> Home:
    return home_of_nights


def config_over(site: Path, folder: Path, **settings: Any) -> Path:
    """The configuration of the three nights over another folder of pages."""
    source = {"name": "docs", "location": str(site)}
    usual = {"golden": str(golden_of_nights()), "gate": {"min_queries": 10}}
    return write_config(folder, {"sources": [source]} | usual | settings)


def test_help_takes_less_than_half_a_second_of_a_processor() -> None:
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def seconds() -> float:
        before = spent()
        done = subprocess.run([TANDEM, "--help"], capture_output=True, text=True, check=True)
        assert "reindex" in done.stdout
        return spent() - before

    assert min(seconds() for _ in range(3)) < 0.5


def test_an_unknown_command_is_wrong_usage(tandem: Tandem) -> None:
    said = tandem("reindx")
    assert said.status == 2
    assert "No such command 'reindx'" in said.err


def test_search_answers_from_the_live_version_or_a_named_one(tandem: Tandem, home: Home) -> None:
    [live] = tandem("search", "docs", TEA, "-k", 1, "--json").json["passages"]
    assert (live["document"], "eighty" in live["text"]) == ("docs/tea.md", True)
    [first] = tandem("search", "docs", TEA, "-k", 1, "--version", 1, "--mode", "vector", "--json").json["passages"]
    assert "sixty" in first["text"]
    shown = tandem("search", "docs", TEA, "-k", 1)
    assert shown.status == 0
    assert f"docs/tea.md:{live['start']}-{live['end']}" in shown.out
    assert tandem("search", "docs", TEA, "--tenant", "nobody").out == "nothing found\n"


def test_search_says_what_is_wrong(tandem: Tandem, home: Home) -> None:
    wrong_mode = tandem("search", "docs", TEA, "--mode", "magic")
    assert (wrong_mode.status, wrong_mode.out) == (2, "")
    assert wrong_mode.err == "tandem: --mode magic is unknown: use vector, text or hybrid\n"
    wrong_name = tandem("search", "dcos", TEA)
    assert (wrong_name.status, wrong_name.out) == (1, "")
    assert "dcos has no version champion: nothing is registered under that name" in wrong_name.err
    assert "docs has no version 9: it has 1, 2, 3" in tandem("search", "docs", TEA, "--version", 9).err


def test_a_rollback_is_tried_made_shown_and_lifted(tandem: Tandem, home: Home) -> None:
    def model() -> dict[str, Any]:
        [row] = tandem("status", "--json").json["models"]
        return row

    before = model()
    assert before == {"name": "docs", "champion": 3, "candidate": None, "previous": 2, "hold": None, "page": ""}
    tried = tandem("rollback", "docs", "--dry-run", "--json").json
    assert (tried["before"], tried["after"], model()) == (3, 2, before)
    made = tandem("rollback", "docs", "--reason", "too cold")
    assert made.out == "docs: version 2 is live, and the index is held (before: 3)\n"
    assert model()["champion"] == 2
    assert "too cold" in tandem("status").out
    again = tandem("rollback", "docs")
    assert (again.status, again.out) == (1, "")
    assert "tandem rollback docs --to 3" in again.err
    assert tandem("promote", "docs", 3, "--reason", "it was right", "--json").json["after"] == 3
    assert model()["hold"]
    assert tandem("unhold", "docs", "--json").json == {"name": "docs", "was_held": True}
    assert tandem("unhold", "docs").out == "docs was not held\n"
    assert model() == before


def test_history_knows_every_move_and_what_was_live_then(tandem: Tandem, home: Home) -> None:
    moves = tandem("history", "docs", "--json").json["moves"]
    lived = [(move["before"], move["after"], move["by"]) for move in moves if move["what"] == "champion"]
    assert lived == [(None, 1, "flow reindex"), (1, 2, "flow reindex"), (2, 3, "flow reindex")]
    assert tandem("history", "docs").out.count("flow reindex") == len(moves)
    second, third = (move["at"] for move in moves if move["what"] == "champion" and move["before"])
    between = datetime.fromtimestamp((second + third) / 2).isoformat()
    assert tandem("history", "docs", "--at", between).out == f"At {between} version 2 of docs was live.\n"
    assert tandem("history", "docs", "--at", "2020-01-01", "--json").json["live"] is None
    wrong = tandem("history", "docs", "--at", "yesterday")
    assert (wrong.status, wrong.err) == (2, "tandem: --at yesterday is no time: write it like 2026-11-20T08:00\n")


def test_collect_deletes_what_nothing_protects(tandem: Tandem, home: Home) -> None:
    assert tandem("collect", "docs", "--keep", 1, "--dry-run").out == "1 would be deleted; 0.0 MB freed\n"
    assert tandem("collect", "docs", "--keep", 1, "--json").json["deleted"] == [1]
    assert tandem("collect", "docs", "--keep", 1, "--json").json["deleted"] == []
    assert "docs has no version 1: it has 2, 3" in tandem("search", "docs", TEA, "--version", 1).err
    assert "seventy" in tandem("search", "docs", TEA, "-k", 1, "--version", 2).out
    assert tandem("doctor").status == 0


@pytest.mark.parametrize("damage", ["champion deleted", "alias moved", "tag removed"])
def test_the_doctor_finds_damage_and_its_command_mends_it(tandem: Tandem, home: Home, damage: str) -> None:
    assert tandem("doctor").out == "Everything is in order.\n"
    client = connect(home)
    manifest = load_manifest(client, "docs", "champion")
    if damage == "champion deleted":
        client.delete_model_version("docs", "3")
        expected, remedy = "nothing is live; version 3 was", "tandem promote docs 2"
    elif damage == "alias moved":
        client.set_registered_model_alias("docs", "champion", "1")
        expected, remedy = "version 1 is live, but the ledger says 3", "tandem mend docs"
    else:
        IndexStore.open(manifest["uri"], manifest["table"]).untag("v3")
        expected, remedy = "the tag v3 that protects version 3 (champion) is gone", "tandem mend docs"
    found = tandem("doctor")
    assert found.status == 1
    assert expected in found.out
    findings = tandem("doctor", "--json").json["findings"]
    assert findings[0]["remedy"] == remedy
    for finding in findings:  # of a version that was deleted, the tag is left
        mended = tandem(*shlex.split(finding["remedy"])[1:])
        assert mended.status == 0, mended.err
    assert tandem("doctor").out == "Everything is in order.\n"
    assert tandem("mend", "docs").out == "Nothing to mend.\n"


def test_drafted_golden_queries_can_be_used_as_they_are(tandem: Tandem, home: Home, tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    drafted = tandem("golden", "draft", "docs", file, "--json").json
    lines = file.read_text().splitlines()
    assert drafted == {"file": str(file), "queries": len(lines)}
    assert all(json.loads(line)["origin"] == "drafted" for line in lines)
    refused = tandem("golden", "draft", "docs", file)
    assert (refused.status, refused.out) == (2, "")
    assert "exists already and may hold edits" in refused.err
    config = write_config(tmp_path, {"golden": str(file), "gate": {"min_queries": 4}})
    night = tandem("reindex", config, "--json").json
    assert (night["decision"], night["live"]) == ("promote", 4)
    assert night["scores"]["recall@10"] == 1.0


def test_the_closing_table_of_a_night_says_what_happened(tandem: Tandem, home: Home, tmp_path: Path) -> None:
    same = write_config(tmp_path, {"golden": str(golden_of_nights()), "gate": {"min_queries": 10}})
    quiet = tandem("reindex", same)
    assert (quiet.status, quiet.err) == (0, "")
    assert "unchanged" in quiet.out
    assert "Sources, configuration and golden queries are as they were." in quiet.out


def test_a_rejected_night_says_why_shows_the_champions_scores_and_what_was_set_aside(
    tandem: Tandem, home: Home, site: Path, tmp_path: Path
) -> None:
    for name in FACTS:
        (site / f"{name}.md").write_text("# Sign in\n\nYour session has expired.\n")
    (site / "manual.pdf").write_bytes(b"%PDF-1.7 torn off")
    gate = {"min_queries": 10, "max_quarantined": 0.5}
    said = tandem("reindex", config_over(site, tmp_path, gate=gate))
    assert (said.status, said.err) == (1, "")
    client = connect(home)
    metrics = read_metrics(client, get(client, "docs", 3).run_id)
    assert "reject, version 4" in said.out
    assert f"champion {metrics['ndcg_at_10']:.3f}" in said.out
    assert "\n- A loss of more than 0.020 that is no noise: ndcg@10 " in said.out
    assert "\n  set aside: docs/manual.pdf: " in said.out
    [model] = tandem("status", "--json").json["models"]
    assert (model["champion"], model["candidate"]) == (3, None)


def test_deletions_that_look_like_a_broken_source_are_followed_once_the_command_allows_them(
    tandem: Tandem, home: Home, site: Path, tmp_path: Path
) -> None:
    for name in ("tea", "bridge"):
        page(site, name, FACTS[name])
    config = config_over(site, tmp_path)
    kept = tandem("reindex", config, "--json")
    assert (kept.status, kept.json["decision"], kept.json["live"]) == (1, "hold", 3)
    assert "2 of 4 documents of source docs are gone at once" in kept.json["reasons"][0]
    assert (kept.json["counts"]["documents gone but kept"], kept.json["counts"]["documents deleted"]) == (2, 0)
    allowed = tandem("reindex", config, "--allow-deletions", "--json")
    assert (allowed.status, allowed.json["decision"], allowed.json["live"]) == (0, "promote", 5)
    assert allowed.json["counts"]["documents deleted"] == 2
    note = "Golden queries left out, because they name only documents that are gone: 10."
    assert allowed.json["reasons"][-1] == note
    found = tandem("search", "docs", "when does the ferry leave", "--json").json["passages"]
    assert sorted(passage["document"] for passage in found) == ["docs/bridge.md", "docs/tea.md"]


def test_a_passage_found_is_shown_in_its_place_with_all_that_is_known_of_it(
    tandem: Tandem, home: Home, site: Path, tmp_path: Path
) -> None:
    (site / "brewing.md").write_text(BREWING)
    source = {"name": "pages", "location": str(site), "language": "en", "tags": ["kitchen"]}
    chunking = {"max_tokens": 24, "overlap_tokens": 4}
    config = config_over(site, tmp_path, name="kitchen", sources=[source], chunking=chunking, golden=None)
    assert tandem("reindex", config).status == 1  # without golden queries it waits for a person
    asked = ("search", "kitchen", "how hot is the water for green tea", "-k", 1, "--version", 1, "--context", 20)
    [found] = tandem(*asked, "--json").json["passages"]
    body = BREWING.split("---\n", 2)[2]
    start, end = body.index("## Water"), body.index("\n\n## Cups")
    known = {key: found[key] for key in ("document", "title", "date", "language", "tags", "heading", "start", "end")}
    assert known == {
        "document": "pages/brewing.md",
        "title": "Green tea at home",
        "date": "2026-03-01",
        "language": "en",
        "tags": ["kitchen", "drinks", "evening"],
        "heading": ["Brewing"],
        "start": start,
        "end": end,
    }
    assert found["text"] == body[start:end]
    assert found["in_place"] == [body[start - 20 : start], found["text"], body[end : end + 20]]
    marked = "l you need for it.[## Water Green tea is steeped at eighty degrees for two minutes.]## Cups Warm the\n"
    assert marked in tandem(*asked).out


def test_promoting_what_is_live_says_so(home_of_nights: Home, tandem: Tandem) -> None:
    said = tandem("promote", "docs", 3)
    assert (said.status, said.out) == (0, "docs: version 3 is live already: nothing was moved (before: 2)\n")


def test_two_servers_on_one_port_are_refused_before_anything_starts(
    home: Home, tandem: Tandem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    deployments = tmp_path / "deployments.yaml"
    deployments.write_text("deployments: []\n")
    said = tandem("up", deployments, "--mlflow-port", 5999, "--prefect-port", 5999)
    assert (said.status, said.err) == (
        2,
        "tandem: mlflow and prefect are to listen on one port, 5999: give each its own\n",
    )
    assert read_services(home) == {}
