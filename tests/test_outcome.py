"""What became of a run stands in Prefect's list, with the reason, and its log tells how it came to that."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from prefect import flow, get_client
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed

from flows.reindex import reindex
from tasks.config.deployments import DeploymentsConfig
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.deploy import deploy_all
from tasks.outcome import outcome_of
from tasks.records import Finetune, Monitored, Night, Spotted
from tasks.train import Losses
from tests.artifacts import log_of, run_of
from tests.nights import golden_for_facts, write_facts
from tests.toys import sleeps_once
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("prefect")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def config(ready_home: Home, configure: Callable[..., ReindexConfig], site: Path, tmp_path: Path) -> ReindexConfig:
    write_facts(site)
    return configure(golden=golden_for_facts(tmp_path), gate={"min_queries": 10, "max_quarantined": 0.5})


def told(state: State[Any]) -> tuple[str, str]:
    run = run_of(state)
    assert run.state
    assert run.state.is_completed()
    return str(run.state_name), str(run.state.message)


def test_nights_end_as_promoted_unchanged_rejected_and_held_each_with_its_reason(
    config: ReindexConfig, site: Path
) -> None:
    first = reindex(config, return_state=True)
    name, message = told(first)
    assert name == "Promoted v1"
    assert message.startswith("ndcg@10 1.000")
    assert isinstance(first.result(), Night)
    assert told(reindex(config, return_state=True)) == (
        "Nothing changed",
        "Sources, configuration and golden queries are as they were.",
    )
    for file in site.glob("*.md"):
        file.write_text(f"# Nothing\n\nNothing to see here, {len(file.stem)}.\n")
    rejected = reindex(config, return_state=True)
    name, message = told(rejected)
    assert name.startswith("Rejected: A loss of more than 0.020")
    assert message == rejected.result().reasons[0]
    for file in site.glob("*.md"):
        file.unlink()
    name, message = told(reindex(config, return_state=True))
    assert name == "Held: source docs yields nothing, and 4 documents of it are indexed"
    assert "yields nothing, and 4 documents of it are indexed" in message


def test_the_log_of_a_night_tells_its_story(config: ReindexConfig, site: Path) -> None:
    (site / "broken.pdf").write_bytes(b"no PDF")
    log = log_of(run_of(reindex(config, return_state=True)))
    for part in (
        "docs: 5 files, revision",
        "4 passages embedded, 0 known already",
        "documents added: 5",
        "scores of candidate: ",
        "prepare: ",
        "set aside: docs/broken.pdf: ",
        "Promoted v1",
    ):
        assert part in log


@flow
def trains() -> None:
    losses = Losses(100)
    for step in range(1, 101):
        losses.add({"event": "log", "step": step, "metrics": {"loss": 3 - step / 50}})


def test_the_log_of_a_training_has_its_loss_some_twenty_times_the_last_one_among_them() -> None:
    lines = [line for line in log_of(run_of(trains(return_state=True))).splitlines() if line.startswith("step ")]
    assert lines[:2] == ["step 1 of 100: loss 2.98", "step 6 of 100: loss 2.88"]
    assert lines[-1] == "step 100 of 100: loss 1"
    assert len(lines) == 21


def test_who_calls_a_flow_in_python_gets_what_it_returns(config: ReindexConfig) -> None:
    assert reindex(config).decision == "promote"


@pytest.mark.parametrize(
    ("promote", "live", "name"),
    [("auto", 2, "Promoted v2"), ("ask", 1, "Awaits approval v2"), ("never", None, "Passed v2")],
)
def test_a_version_that_passed_and_is_not_live_does_not_look_promoted(
    promote: str, live: int | None, name: str
) -> None:
    done = Finetune("support", "sft", "promote", ("It is better.",), version=2, live=live)
    assert outcome_of(done, promote).name == name


def test_a_watch_ends_with_the_number_of_its_findings_and_the_first_that_is_new() -> None:
    found = (
        Spotted("stale", "docs/north", "North is stale.", "re-index", known=True),
        Spotted("old", "support", "Support is old.", "train"),
    )
    outcome = outcome_of(Monitored("desk", "desk@1", "found", found, (), {}, {}))
    assert (outcome.name, outcome.message) == ("2 findings", "Support is old.")


@contextmanager
def pager(received: list[str]) -> Iterator[str]:
    """A server to which a webhook tells things."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def end_run(client: SyncPrefectClient, run: FlowRun, name: str, message: str) -> None:
    client.set_flow_run_state(run.id, Completed(name=name, message=message), force=True)


def test_the_automation_that_is_shipped_tells_of_a_night_that_was_held_and_of_no_other_teams_run(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "automations"
    folder.mkdir()
    shipped = yaml.safe_load((ROOT / "conf" / "automations" / "tell-runs.yaml").read_text())
    (folder / "tell-runs.yaml").write_text(yaml.safe_dump(shipped | {"notify": "webhook/pager"}))
    toy = {"name": "toy", "flow": "tests/toys.py:sleeps_once", "work_pool": "nobody"}
    settings = {"work_pools": [{"name": "nobody"}], "deployments": [toy], "automations": str(folder)}
    received: list[str] = []
    with pager(received) as address:
        Webhook(url=address, allow_private_urls=True).save("pager", overwrite=True)
        (name,), installed = deploy_all(DeploymentsConfig.model_validate(settings), ROOT)
        assert installed.installed == ("tell-runs",)
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(name)

            def ours() -> FlowRun:
                return client.create_flow_run_from_deployment(deployment.id, parameters={"folder": "none"})

            end_run(client, ours(), "Promoted v7", "It is better.")
            end_run(client, client.create_flow_run(sleeps_once), "Held: Theirs", "Of another team.")

            def was_told() -> bool:  # a busy server may see an event before it knows of a new automation
                end_run(client, ours(), "Held: Too few", "Too few queries.")
                time.sleep(2)
                return any("Held: Too few\nToo few queries." in body for body in received)

            wait_for(was_told, 60)
            client.delete_deployment(deployment.id)
    assert not any("another team" in body or "Promoted" in body for body in received)
