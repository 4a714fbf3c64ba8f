"""A home with releases, made once in a process without Prefect, and the service over it."""

import functools
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.answering.assistant import Assistant
from tasks.answering.grounding import Grounding
from tasks.answering.service.state import Service
from tasks.answering.service.tracing import TENANT_TAG, record_of
from tasks.collect import collect
from tasks.compare import compare
from tasks.config.answering import PolicyConfig
from tasks.config.index import ReindexConfig
from tasks.config.service import ServiceConfig
from tasks.config.settings import Home
from tasks.index.store import IndexStore
from tasks.maintain import maintain
from tasks.prepare import prepare
from tasks.records import ReleaseManifest, kind_of
from tasks.register import describe_version
from tasks.registry.connection import MlflowClient, connect, registry
from tasks.registry.runs import finish, start_run
from tasks.registry.traces import experiment_of, new_trace_id, write_traces
from tasks.registry.versions import PART_TAG, next_number, register, register_prompt
from tasks.releases import ENTRY_POINT
from tasks.serve import listen, open_service, server_of
from tasks.serving import ENTRY_POINT as INDEX_ENTRY_POINT
from tasks.write import write
from tests.homes import copy_home, use_home
from tests.nights import FACTS, page
from tests.registry_fixtures import empty_home
from tests.waiting import wait_for

NAME = "desk"
QUESTION = "how hot is green tea steeped"
NOT_THERE = "who invented the telephone"
TEMPERATURES = {1: "sixty", 2: "eighty"}
"""Of the tea of north, by version; south's is another."""
SOUTHERN = "fifty"
_templates = tempfile.TemporaryDirectory(prefix="tandem-released-")


def refusal(number: int) -> str:
    """What the release of this number says where it knows nothing."""
    return f"Release {number} does not know."


@functools.cache
def two_releases() -> Home:
    """Releases 1 and 2 of `desk`, each with an index, a prompt and a policy of its own; 2 is live and 1 was before."""
    folder = Path(_templates.name)
    home = copy_home(empty_home(), folder / "home")
    with pytest.MonkeyPatch.context() as patch:
        use_home(home, patch)
        for number in TEMPERATURES:
            add_release(home, folder, number)
    client = connect(home)
    for alias, number in (("champion", 2), ("previous", 1)):
        move(client, number, alias)
    return home


def add_release(home: Home, folder: Path, number: int) -> None:
    """Write the pages, index them, and register index, prompt and release; `home` is the one in use."""
    client = connect(home)
    for tenant, temperature in (("north", TEMPERATURES.get(number, "ninety")), ("south", SOUTHERN)):
        for name, fact in FACTS.items():
            text = f"{fact} So it is in the {tenant}." if name != "tea" else fact.replace("eighty", temperature)
            page(folder / tenant, name, text)
    page(folder / "south", "contact", "The timetable is made by Anna, anna.larsen@harbour.org. So it is in the south.")
    index = add_index(client, home, folder)
    prompt = register_prompt(client, "answer", [{"role": "system", "content": f"Prompt {number}: {{{{ passages }}}}"}])
    register_release(client, number, index, f"answer@{prompt.number}", PolicyConfig(refusal=refusal(number)))


def register_release(
    client: MlflowClient, number: int, index: str, prompt: str, policy: PolicyConfig, adapter: str = ""
) -> None:
    """Register a release of these parts."""
    manifest = ReleaseManifest(
        release=NAME,
        tag=f"v{number}",
        index=index,
        adapter=adapter,
        prompt=prompt,
        policy=policy.model_dump(mode="json"),
        grounding=Grounding().to_json(),
    )
    tags = {f"{PART_TAG}{kind}": part for kind, part in manifest.parts.items()}
    register_manifest(client, NAME, asdict(manifest), ENTRY_POINT, tags)


def add_index(client: MlflowClient, home: Home, folder: Path) -> str:
    """The pages below `north` and `south`, indexed and registered as the next version of `docs`; as ``name@number``."""
    sources = [{"name": name, "location": str(folder / name), "tenant": name} for name in ("north", "south")]
    config = ReindexConfig.model_validate({"name": "docs", "sources": sources, "lock_minutes": 0})
    listings = [collect.fn(source, config.parsing.max_file_mb) for source in config.sources]
    work = compare(config, listings, {}, False, {}, home)
    prepared = prepare.fn(config, listings, work)
    write.fn(work, prepared)
    manifest = describe_version(config, work, maintain.fn(config, work.table), home)
    IndexStore.open(home.lancedb, manifest.table).tag(manifest.tag, manifest.lance_version)
    return f"docs@{register_manifest(client, 'docs', asdict(manifest), INDEX_ENTRY_POINT)}"


def register_manifest(
    client: MlflowClient,
    name: str,
    manifest: dict[str, Any],
    entry: str,
    tags: dict[str, str] | None = None,
    **more: Any,
) -> int:
    """Register a manifest as the next version, whether what it names is there or not; returns its number."""
    run = start_run(client, "made", "made", name)
    number = next_number(client, name)
    own = {"entry_point": entry, "requirements": ["tandem"], "tags": tags}
    register(client, name, run, manifest, kind=kind_of(manifest), number=number, **own, **more)
    finish(client, run)
    return number


def record(
    client: MlflowClient,
    assistant: Assistant,
    asked: Sequence[tuple[str, str]],
    texts: str = "questions",
    experiment: str = "answers-desk",
) -> list[str]:
    """Write traces as the service does, a second apart, the last one now; returns their ids."""
    now = time.time_ns()
    records = [
        record_of(
            new_trace_id(),
            assistant.answer(question, tenant),
            now - (len(asked) - place) * 1_000_000_000,
            texts,
            {TENANT_TAG: tenant},
        )
        for place, (question, tenant) in enumerate(asked)
    ]
    write_traces(client, experiment_of(client, experiment), records)
    return [each.trace_id for each in records]


def move(client: MlflowClient, number: int, alias: str = "champion") -> None:
    """As a hand in MLflow's own UI does it."""
    registry(client).set_registered_model_alias(NAME, alias, str(number))


def mixed(said: dict[str, Any]) -> bool:
    """Whether parts of an answer to north come from different releases."""
    number = int(said["versions"]["release"].partition("@")[2])
    text = said["choices"][0]["message"]["content"]
    words = refusal(number) if said["refused"] else f"{TEMPERATURES[number]} degrees"
    parts = {"release": f"desk@{number}", "index": f"docs@{number}", "adapter": "", "prompt": f"answer@{number}"}
    return words not in text or said["versions"] != parts or said["model"] != f"desk@{number}"


@dataclass(frozen=True)
class Serving:
    """A service that runs in this process and is asked over HTTP."""

    service: Service
    address: str
    http: httpx.Client

    def ask(self, question: str = QUESTION, key: str = "", **more: object) -> httpx.Response:
        body = {"model": NAME, "messages": [{"role": "user", "content": question}], **more}
        return self.http.post("/v1/chat/completions", json=body, headers=bearer(key))

    def search(self, query: str = QUESTION, key: str = "", **more: object) -> httpx.Response:
        return self.http.post("/v1/search", json={"query": query, **more}, headers=bearer(key))

    def ready(self, key: str = "") -> dict:
        return self.http.get("/readyz", headers=bearer(key)).json()

    def metric(self, line: str) -> float:
        """The value of a line of /metrics, which is given as it stands there."""
        [value] = [text.split()[-1] for text in self.http.get("/metrics").text.splitlines() if text.startswith(line)]
        return float(value)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


@contextmanager
def served(home: Home, **settings: object) -> Iterator[Serving]:
    """The release, served as `tandem serve` does while the block lasts."""
    config = ServiceConfig.model_validate({"port": 0, "poll_seconds": 0.1, "tracing": {"enabled": False}} | settings)
    service, listening = open_service(NAME, config, home), listen(config)
    server = server_of(service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_for(lambda: server.started, 60)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=address, timeout=60) as http:
            yield Serving(service, address, http)
    finally:
        server.should_exit = True
        thread.join()
