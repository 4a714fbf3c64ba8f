"""A watch over a release, with real traces in MLflow, real events in Prefect and real tables in LanceDB."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from flows.reindex import reindex
from tasks.answering.service.tracing import RELEASE_TAG
from tasks.config.answering import PolicyConfig
from tasks.config.monitoring import MonitorConfig
from tasks.config.settings import Home
from tasks.errors import ConfigError
from tasks.observe import compare_answers, read_windows
from tasks.records import AdapterManifest
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.runs import read_text
from tasks.registry.traces import SpanRecord, TraceRecord, assess, experiment_of, new_trace_id, write_traces
from tasks.training.base import hash_base, hash_settings
from tasks.upkeep import look_after
from tasks.upstream import Unanswered, changed_upstream
from tests.command import Tandem
from tests.homes import copy_home, use_home
from tests.nights import config_over_facts
from tests.released import NAME, register_manifest, register_release, two_releases
from tests.waiting import wait_for

BEFORE, NOW = 100, 50
TOPICS = ("green tea", "the old bridge", "library books", "the island ferry")
WORDS = ("how", "when", "why", "where", "what about", "who knows", "tell me of", "is there", "any news of")
ELSEWHERE = ("bank card", "a cash machine", "exchange rate", "account transfer")
"""As long as those."""


@pytest.fixture(scope="module")
def shared(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with pytest.MonkeyPatch.context() as patch:
        yield use_home(copy_home(two_releases(), tmp_path_factory.mktemp("monitor") / "home"), patch)


def settings(**changes: Any) -> dict[str, Any]:
    small = {"reference": BEFORE, "window": NOW, "ask_hub": False}
    return {"name": NAME, "release": NAME} | small | changes


def configured(**changes: Any) -> MonitorConfig:
    return MonitorConfig.model_validate(settings(**changes))


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "monitor.yaml"
    path.write_text(yaml.safe_dump(settings(**changes)))
    return path


def asked(count: int, topics: Sequence[str] = TOPICS) -> list[str]:
    return [
        f"{WORDS[number % len(WORDS)]} {topics[number % len(topics)]} {number % 90 + 10}" for number in range(count)
    ]


def record(
    client: MlflowClient,
    experiment: str,
    questions: Sequence[str],
    texts: bool = True,
    refused: int = 0,
    seconds: float = 0.1,
) -> list[str]:
    """Write traces as the service does, the last one now; of ten in a row so many are refused."""
    now = time.time_ns()
    records = []
    for number, question in enumerate(questions):
        start = now - (len(questions) - number) * 1_000_000
        end = start + int(seconds * (1 + number % 7 / 10) * 1e9)
        told = {"refused": number % 10 < refused, "confidence": 0.9, "cited": ["tea.md#0"]}
        inputs = {"question": question} if texts else {"characters": len(question)}
        found = [{"id": "tea.md#0", "page_content": "", "metadata": {"score": 0.5 + number % 10 / 100}}]
        steps = [
            SpanRecord("search", "RETRIEVER", start, end, inputs, found),
            SpanRecord("generation", "LLM", start, end, tokens=(200 + number % 9, 30 + number % 5)),
        ]
        whole = SpanRecord("answer", "CHAIN", start, end, inputs, told)
        records.append(TraceRecord(new_trace_id(), whole, steps, {RELEASE_TAG: f"{NAME}@2"}))
    write_traces(client, experiment_of(client, experiment), records)
    return [each.trace_id for each in records]


def events(name: str) -> list[dict[str, Any]]:
    body = {"filter": {"event": {"name": [name]}, "occurred": {"since": "2000-01-01T00:00:00Z"}}, "limit": 50}
    response = httpx.post(f"{PREFECT_API_URL.value()}/events/filter", json=body)
    response.raise_for_status()
    return list(response.json()["events"])


def test_a_shift_is_found_told_once_and_kept_with_its_figures(shared: Home, tmp_path: Path, tandem: Tandem) -> None:
    client, file = connect(shared), write(tmp_path, experiment="shifted")
    record(client, "shifted", asked(BEFORE + NOW))
    quiet = tandem("monitor", file, "--json")
    assert (quiet.status, quiet.json["decision"], quiet.json["found"]) == (0, "quiet", []), quiet.err
    assert len(quiet.json["scores"]) == 11  # nobody rated, and no answer's text is kept
    record(client, "shifted", asked(NOW, ELSEWHERE), refused=5, seconds=0.4)
    said = tandem("monitor", file, "--json")
    assert said.status == 1
    found = {(each["sign"], each["what"]): each for each in said.json["found"]}
    assert set(found) == {("drift", "questions"), ("quality", "refused"), ("quality", "seconds, median")}
    assert "Refused: 0.0% before, 50.0% now (+50.0 points" in found["quality", "refused"]["sentence"]
    wait_for(lambda: len(events("tandem.monitor.quality")) == 2, 30)
    (event,) = events("tandem.monitor.drift")
    assert event["resource"]["prefect.resource.id"] == f"tandem.release.{NAME}"
    assert event["payload"]["sentence"] == found["drift", "questions"]["sentence"]

    again = tandem("monitor", file)
    assert again.status == 1
    assert "drift (known): People ask something else" in again.out
    assert len(events("tandem.monitor.drift")) == 1

    run = client.get_run(said.json["run_id"])
    assert (run.data.tags["tandem.release"], run.data.tags["tandem.decision"]) == ("desk@2", "found")
    assert run.data.metrics["refused.now"] == 0.5
    assert run.data.metrics["questions.now"] == pytest.approx(said.json["scores"]["questions"]["now"])
    assert {each.path for each in client.list_artifacts(run.info.run_id)} >= {"changes.png", "found.json", "report.md"}
    report = read_text(client, run.info.run_id, "report.md")
    assert "# desk: 3 findings about desk@2, 3 new" in report
    assert "credit card" not in report
    with get_client(sync_client=True) as prefect_client:
        shown = {each.key: str(each.data) for each in prefect_client.read_latest_artifacts()}
    assert "3 findings about desk@2, none new" in shown["monitor-desk"]
    assert "![changes](data:image/png;base64," in shown["monitor-desk"]


def test_without_texts_the_lengths_are_compared_and_the_note_says_so(
    shared: Home, tmp_path: Path, tandem: Tandem
) -> None:
    client, file = connect(shared), write(tmp_path, experiment="untold", name="untold")
    record(client, "untold", asked(BEFORE), texts=False)
    record(client, "untold", [f"{each}, and all that belongs to it" for each in asked(NOW)], texts=False)
    said = tandem("monitor", file, "--json")
    assert [each["what"] for each in said.json["found"]] == ["characters of a question"]
    assert "questions" not in said.json["scores"]
    assert "`tracing: {texts: questions}` in conf/service/desk.yaml" in said.json["notes"][0]


def test_where_the_embedder_has_changed_the_answers_are_compared_and_the_index_is_named(
    shared: Home, tmp_path: Path, tandem: Tandem, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.serving import _embedder

    record(connect(shared), "moved", asked(BEFORE + NOW))
    monkeypatch.setattr("tasks.index.embedding.PACKAGED_VERSION", 2)
    _embedder.cache_clear()
    said = tandem("monitor", write(tmp_path, experiment="moved", name="moved"), "--json")
    _embedder.cache_clear()
    assert [(each["sign"], each["what"]) for each in said.json["found"]] == [("changed", "docs@2")]
    assert "What people ask is not compared: docs v2 was embedded with" in said.json["notes"][0]
    assert said.json["scores"]["refused"]["now"] == 0


def test_until_there_are_enough_answers_nothing_is_compared_and_the_parts_are_looked_after(
    shared: Home, tmp_path: Path, tandem: Tandem
) -> None:
    client = connect(shared)
    record(client, "new", asked(BEFORE + NOW - 1))
    file = write(tmp_path, experiment="new", name="new", max_source_days=1e-9, max_live_days={"index": 1e-9})
    said = tandem("monitor", file, "--json")
    assert "Of desk 149 answers are traced so far" in said.json["notes"][0]
    assert said.json["scores"] == {}
    assert [(each["sign"], each["what"]) for each in said.json["found"]] == [
        ("stale", "docs/north"),
        ("stale", "docs/south"),
        ("old", "index"),
    ]
    assert "The live index docs@2 is 0.0 days old, more than the 1e-09 allowed." in said.json["found"][2]["sentence"]


def test_the_windows_hold_the_first_and_the_newest_answers_in_order_with_what_people_said(shared: Home) -> None:
    client = connect(shared)
    ids = record(client, "told", asked(BEFORE + NOW + 7), seconds=0.2)
    assess(client, ids[-1], by="somebody", thumb=False, correction="At seventy.")
    windows = read_windows(configured(experiment="told"), shared)
    assert [each.trace_id for each in windows.reference] == ids[:BEFORE]
    assert [each.trace_id for each in windows.recent] == ids[-NOW:]
    last = windows.recent[-1]
    assert (last.thumb, last.correction, last.tokens) == (False, "At seventy.", (203, 31))
    assert last.seconds == pytest.approx(0.2 * 1.2, abs=1e-3)
    assert last.scores == (0.56,)
    later = configured(experiment="told", reference_from=windows.recent[0].at + 0.0015)
    assert len(read_windows(later, shared).reference) == NOW - 1


def test_with_a_model_that_has_prices_what_answers_cost_is_compared_in_place_of_their_tokens(shared: Home) -> None:
    client = connect(shared)
    record(client, "priced", asked(BEFORE + NOW))
    config = configured(experiment="priced", hosted_model="large")  # at 5 and 15 a million, as conf/prices.yaml has it
    windows = read_windows(config, shared)
    changes = {change.name: change for change in compare_answers(config, windows)}
    assert "tokens read" not in changes
    assert changes["cost of an answer, $"].before == pytest.approx(204 * 5e-6 + 32 * 15e-6)  # the median of both
    with pytest.raises(ConfigError, match="hosted_model: the prices have no huge; they have large"):
        compare_answers(configured(hosted_model="huge"), windows)


def test_a_source_is_as_old_as_its_last_good_listing_and_its_last_change(
    prefect: None, ready_home: Home, tmp_path: Path
) -> None:
    # by a name of its own, for Prefect's runs of other tests are there too
    nightly = config_over_facts(tmp_path).model_copy(update={"name": "watched"})
    assert reindex(nightly).version == 1
    began = time.time()
    assert reindex(nightly).decision == "unchanged"
    client = connect(ready_home)
    register_release(client, 1, "watched@1", "", PolicyConfig())
    (source,) = look_after(configured(), f"{NAME}@1").sources
    assert (source.index, source.source, source.documents) == ("watched", "docs", 4)
    assert source.changed == client.get_model_version("watched", "1").creation_timestamp / 1000
    assert source.listed > began


def test_the_adapter_and_the_index_whose_models_changed_or_are_gone_are_named(
    shared: Home, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    client, base = connect(shared), tmp_path / "base"
    shutil.copytree(tiny_model, base)
    manifest = AdapterManifest(
        adapter="tone",
        tag="v1",
        method="sft",
        base={"model": str(base), "revision": None},
        base_hash=hash_base(base),
        base_settings_hash=hash_settings(base),
        adapter_hash="",
        dataset="",
        dataset_hash="",
        parent="",
        seed=1,
        libraries={},
    )
    register_manifest(client, "tone", asdict(manifest), "tasks.adapters:answering")
    register_release(client, 3, "docs@2", "", PolicyConfig(), adapter="tone@1")

    def changed() -> dict[str, str]:
        return {each.what: each.sentence for each in look_after.fn(configured(), f"{NAME}@3").found}

    assert changed() == {}
    weights = next(base.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b" ")
    assert "tone@1 depends on it: the weights of the base model" in changed()["tone@1"]
    weights.write_bytes(weights.read_bytes()[:-1])
    assert changed() == {}
    (base / "config.json").write_text((base / "config.json").read_text().replace("{", '{"more": 1, ', 1))
    assert "tone@1 depends on it: the settings of the base model" in changed()["tone@1"]
    shutil.rmtree(base)
    assert "tone@1 depends on it: the base model is gone: there is no model folder" in changed()["tone@1"]
    monkeypatch.setattr("tasks.index.embedding.PACKAGED_VERSION", 2)
    assert "docs@2 depends on it: the embedder all-MiniLM-L6-v2 is" in changed()["docs@2"]


OFFERED = {"sha": "b" * 40, "weights": "2"}


class Hub(BaseHTTPRequestHandler):
    """The hub's answers for someone/tiny: its newest commit, and one before with the weights 1."""

    def do_GET(self) -> None:
        status, body, code = 200, {"id": "someone/tiny"}, ""
        if "someone/tiny" not in self.path:
            status, code = 404, "RepoNotFound"
        elif "/revision/" in self.path and "a" * 40 not in self.path:
            status, code = 404, "RevisionNotFound"
        else:
            old = "/revision/" in self.path
            lfs = {"sha256": "1" if old else OFFERED["weights"], "size": 1, "pointerSize": 1}
            body |= {"sha": "a" * 40 if old else OFFERED["sha"]}
            body |= {"siblings": [{"rfilename": "model.safetensors", "size": 1, "lfs": lfs}]}  # type: ignore[dict-item]
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


def test_a_model_that_the_hub_withdrew_or_replaced_is_told_from_one_that_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setitem(OFFERED, "weights", "2")
    assert changed_upstream("someone/tiny", OFFERED["sha"]) == ""
    assert "now offers other weights of the model someone/tiny" in changed_upstream("someone/tiny", "a" * 40)
    monkeypatch.setitem(OFFERED, "weights", "1")  # another commit, of a text beside them
    assert changed_upstream("someone/tiny", "a" * 40) == ""
    assert "the revision cccc" in changed_upstream("someone/tiny", "c" * 40)
    assert "someone/gone is withdrawn" in changed_upstream("someone/gone", "a" * 40)
    server.shutdown()
    server.server_close()
    with pytest.raises(Unanswered, match="the hub does not answer for someone/tiny"):
        changed_upstream("someone/tiny", None)
