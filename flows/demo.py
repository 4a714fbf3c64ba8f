"""The story of Tandem in one go: an index and an adapter are renewed, a gate says no to each, each is rolled back.

Then a release answers with its sources, and is rolled back as a whole while a client keeps asking. At last its failures
are sorted by cause, and an advice says what would be worth its price.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import yaml

from flows.advise import advise
from flows.diagnose import diagnose
from flows.finetune_dpo import finetune_dpo
from flows.finetune_sft import finetune_sft
from flows.reindex import reindex
from flows.release import release
from flows.rollback import rollback
from tasks.adapters import MAX_NEW_TOKENS, open_adapter
from tasks.config.advice import CaseConfig
from tasks.config.answering import ReleaseConfig
from tasks.config.diagnosis import DiagnoseConfig
from tasks.config.index import ReindexConfig
from tasks.config.loading import load_config
from tasks.config.moves import RollbackConfig
from tasks.config.service import ServiceConfig, TracingConfig
from tasks.config.settings import Home
from tasks.config.training import DpoConfig, SftConfig
from tasks.errors import ServerError
from tasks.records import Answer, Finetune, Move, Night, Released
from tasks.registry.connection import connect
from tasks.registry.ledger import history
from tasks.registry.pointers import pointers
from tasks.registry.runs import read_text
from tasks.releases import open_release
from tasks.report_advice import PLOT_FILE
from tasks.serve import listen, open_service, server_of
from tasks.serving import live_index

SAMPLES = Path("data") / "samples"
QUERY = "how many hours are bus camera pictures kept"
TENANT = "south"
MESSAGES = 20
"""So many held-out messages are answered before and after the adapter's rollback; one that changes is shown."""
RETENTION = "the new retention period is not yet agreed"
CARDS = "the help desk still looks loyalty cards up as orders"
NOT_THERE = "who may bring a falcon on board"
PHONE = "authenticator is on my old phone that I no longer have"
PHONE_TENANT = "north"
TOO_LONG = "long answers tell people to use a phone that they no longer have"
AFTERWARDS, PATIENCE = 1.0, 30.0
"""Seconds that the client goes on asking after the release before has answered, and that this may take."""
TOO_FAST = {"learning_rate": 0.01, "max_steps": 80}
"""In a third of the time the tiny base model learns the task as well, and forgets much of the rest."""

Say = Callable[[str], None]
Story = dict[str, Any]


def run_demo(root: Path, home: Home, say: Say) -> Story:
    """The stories of index, adapter and release, and what follows, from the samples of the repository at `root`."""
    began = time.time()
    stories = {
        "index": index_story(root, home, say),
        "adapter": adapter_story(root, home, say),
        "release": release_story(root, home, say),
        **what_follows(root, home, say),
    }
    return {**stories, "seconds": round(time.time() - began, 1)}


def index_story(root: Path, home: Home, say: Say) -> Story:
    """Four nights and a rollback."""
    samples = root / SAMPLES
    site = home.root / "site"
    shutil.copytree(samples / "night1", site)
    plan = yaml.safe_load((samples / "night2" / "changes.yaml").read_text(encoding="utf-8"))
    config = pointed_at(site, root)
    steps: list[dict[str, Any]] = []

    def night(title: str) -> None:
        say(title)
        steps.append({"step": title, **_of_night(reindex(config))})

    night("First night: everything is new")
    night("Second night: nothing changed")
    _change(site, samples / "night2", plan["changed_night"])
    night("Third night: edits, a new page, a move, a deletion")
    _damage(site, plan["damaged_night"])
    night("Fourth night: the export was broken, every page is a login form")
    answer_before = _search(config.name, home)
    say("On call: roll the index back")
    steps.append({"step": "Rollback", **_roll_back(config.name, RETENTION)})
    return _told(config.name, home, steps, QUERY, answer_before, _search(config.name, home))


def adapter_story(root: Path, home: Home, say: Say) -> Story:
    """Examples teach the form of an answer, preferences settle what examples left open; then a mistake, a rollback."""
    examples = load_config(root / "conf" / "sft" / "support.yaml", SftConfig)
    pairs = load_config(root / "conf" / "dpo" / "support.yaml", DpoConfig)
    faster = examples.training.model_copy(update=TOO_FAST)
    steps: list[dict[str, Any]] = []

    say("SFT: support messages become JSON")
    steps.append({"step": "SFT on examples", **_of_finetune(finetune_sft(examples), "schema_valid", "base")})
    say("DPO: pairs of answers settle what the examples left open")
    done = finetune_dpo(pairs)
    steps.append({"step": "DPO on pairs", **_of_finetune(done, "preference_accuracy", "champion")})
    say("SFT once more, in a hurry")
    done = finetune_sft(examples.model_copy(update={"training": faster}))
    steps.append({"step": "SFT in a hurry", **_of_finetune(done, "general_loss", "base")})
    messages = _held_out_messages(root)
    before = _answers(examples.name, messages, home)
    say("On call: roll the adapter back")
    steps.append({"step": "Rollback", **_roll_back(examples.name, CARDS)})
    answered = list(zip(messages, before, _answers(examples.name, messages, home), strict=True))
    changed = [each for each in answered if each[1] != each[2]]
    say(f"{len(changed)} of {len(messages)} held-out messages are answered otherwise after it")
    return _told(examples.name, home, steps, *(changed or answered)[0])


def release_story(root: Path, home: Home, say: Say) -> Story:
    """Two releases, an answer with its sources, a refusal, and a rollback while a client keeps asking."""
    config = load_config(root / "conf" / "release" / "helpdesk.yaml", ReleaseConfig)
    steps: list[dict[str, Any]] = []

    say("A release: index, prompt and policy become one version, which is attacked before it goes live")
    first = release(config)
    steps.append({"step": "First release", **_of_release(first)})
    say("A second release has another policy: longer answers")
    second = release(config.model_copy(update={"policy": "thorough"}))
    steps.append({"step": "Second release", **_of_release(second)})
    say("Two questions: one that the documents answer, and one that they do not")
    assistant = open_release(config.name, second.version, home)
    answered, refused = (_of_answer(assistant.answer(question, TENANT)) for question in (QUERY, NOT_THERE))
    say("On call: roll the release back, while a client keeps asking")
    with _served(config.name, home) as address, _asking(config.name, address) as client:
        client.wait_for(f"{config.name}@{second.version}")
        began = time.perf_counter()
        steps.append({"step": "Rollback", **_roll_back(config.name, TOO_LONG)})
        client.wait_for(f"{config.name}@{first.version}")
    report = read_text(connect(home), second.run_id, "report.md")
    return {
        **_told(config.name, home, steps, PHONE, client.answers[0].text, client.answers[-1].text),
        "answered": answered,
        "refused": refused,
        "client": client.summary(began),
        "guardrails": report.partition("## Guardrails\n")[2].partition("\n## ")[0].strip(),
    }


def what_follows(root: Path, home: Home, say: Say) -> Story:
    """A diagnosis of the live release's failures, and an advice that counts it."""
    say("Why answers fail: each failed one gets its cause, each cause its cheapest fix")
    diagnosed = diagnose(load_config(root / "conf" / "diagnose" / "helpdesk.yaml", DiagnoseConfig))
    say("Retrieval, fine-tuning, or both: what was measured, scores and prices")
    advised = advise(load_config(root / "conf" / "cases" / "helpdesk.yaml", CaseConfig))
    plot = connect(home).download_artifacts(advised.run_id, PLOT_FILE, str(home.root))
    return {"diagnosis": asdict(diagnosed), "advice": asdict(advised), "plot": plot}


@contextmanager
def _served(name: str, home: Home) -> Iterator[str]:
    """The service of a release, in a thread; yields its address."""
    config = ServiceConfig(port=0, tracing=TracingConfig(enabled=False))
    service, listening = open_service(name, config, home), listen(config)
    server = server_of(service)
    thread = Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def _asking(release: str, address: str) -> Iterator["_Client"]:
    """A client that asks one question after the other, before, during and after what is done meanwhile."""
    client = _Client(release, address)
    thread = Thread(target=client.ask_on)
    thread.start()
    try:
        yield client
        time.sleep(AFTERWARDS)
    finally:
        client.stopped.set()
        thread.join()


@dataclass(frozen=True)
class _Told:
    """What a client was told, and when."""

    at: float
    release: str
    index: str
    text: str


@dataclass
class _Client:
    """Asks the same question again and again, and keeps what it is told."""

    release: str
    address: str
    answers: list[_Told] = field(default_factory=list)
    failed: int = 0
    stopped: Event = field(default_factory=Event)

    def ask_on(self) -> None:
        from openai import OpenAI, OpenAIError

        client = OpenAI(base_url=self.address, api_key="none", max_retries=0)
        question: Any = [{"role": "user", "content": PHONE}]
        while not self.stopped.is_set():
            try:
                said = client.chat.completions.create(
                    model=self.release, messages=question, extra_body={"tenant": PHONE_TENANT}
                )
            except OpenAIError:
                self.failed += 1
                continue
            index = (said.model_extra or {})["versions"]["index"]
            self.answers.append(_Told(time.perf_counter(), said.model, index, said.choices[0].message.content or ""))

    def wait_for(self, release: str) -> None:
        """Until this release answers. Raises ServerError if it does not."""
        end = time.monotonic() + PATIENCE
        while not self.answers or self.answers[-1].release != release:
            if time.monotonic() > end:
                raise ServerError(f"the service does not answer from {release} within {PATIENCE:g} s")
            time.sleep(0.01)

    def summary(self, began: float) -> dict[str, Any]:
        """Counts, and the seconds from the command until only the release at the end answered."""
        last = self.answers[-1].release
        kinds = {(told.release, told.index, told.text) for told in self.answers}
        return {
            "answers": len(self.answers),
            "failed": self.failed,
            "mixed": len(kinds) - len({told.release for told in self.answers}),
            "seconds": round(max(told.at for told in self.answers if told.release != last) - began, 2),
        }


def _told(name: str, home: Home, steps: list[dict[str, Any]], asked: str, before: str, after: str) -> Story:
    client = connect(home)
    return {
        "steps": steps,
        "asked": asked,
        "before_rollback": before,
        "after_rollback": after,
        "held": pointers(client, name).hold,
        "ledger": [f"{m.what} {m.before} → {m.after}: {m.reason} ({m.by})" for m in history(client, name)],
    }


def pointed_at(site: Path, root: Path) -> ReindexConfig:
    """The samples' own configuration, pointed at the working copy."""
    config = load_config(root / "conf" / "index" / "samples.yaml", ReindexConfig)
    sources = [source.model_copy(update={"location": str(site / source.name)}) for source in config.sources]
    return config.model_copy(update={"sources": tuple(sources), "golden": str(root / SAMPLES / "golden.jsonl")})


def _change(site: Path, overlay: Path, plan: dict[str, Any]) -> None:
    for tenant in ("north", "south"):
        shutil.copytree(overlay / tenant, site / tenant, dirs_exist_ok=True)
    for old, new in plan["moved"].items():
        (site / new).parent.mkdir(parents=True, exist_ok=True)
        (site / old).rename(site / new)
    for deleted in plan["deleted"]:
        (site / deleted).unlink()


def _damage(site: Path, plan: dict[str, str]) -> None:
    for page in site.glob(plan["replace"]):
        page.write_text(plan["text"], encoding="utf-8")


def _search(name: str, home: Home) -> str:
    from tasks.index.search import Filters

    _, found = live_index(name, home).search([QUERY], k=1, filters=Filters(tenant=TENANT))
    text = found[0][0].text
    return next(line.strip() for line in text.splitlines() if "camera" in line)


def _held_out_messages(root: Path) -> list[str]:
    lines = (root / SAMPLES / "support" / "pairs_held_out.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines[:MESSAGES]]


def _answers(name: str, messages: list[str], home: Home) -> list[str]:
    conversations = [[{"role": "user", "content": message}] for message in messages]
    return open_adapter(name, "champion", home).answer(conversations, MAX_NEW_TOKENS)


def _roll_back(name: str, reason: str) -> dict[str, Any]:
    return _of_move(rollback(RollbackConfig(name=name, reason=reason, by="on call")))


def _of_night(night: Night) -> dict[str, Any]:
    shown = ("documents added", "documents changed", "documents moved", "documents deleted", "passages embedded")
    counts = ", ".join(f"{night.counts[name]} {name.split()[1]}" for name in shown if night.counts.get(name))
    return {
        "decision": night.decision,
        "version": night.version,
        "live": night.live,
        "what": counts or "nothing to do",
        "score": f"ndcg@10 {night.scores['ndcg@10']:.3f}" if night.scores else "",
        "why": night.reasons[0],
        "seconds": round(sum(night.seconds.values()), 2),
    }


def _of_finetune(done: Finetune, score: str, beside: str) -> dict[str, Any]:
    """What a fine-tune did, with one score beside that of another contender."""
    return {
        "decision": done.decision,
        "version": done.version,
        "live": done.live,
        "what": f"{done.counts['rows: train']} rows, {done.counts['steps']} steps",
        "score": f"{score} {done.scores[beside][score]:.3f} → {done.scores['candidate'][score]:.3f}",
        "scores": done.scores,
        "reasons": done.reasons,
        "why": next((reason for reason in done.reasons if score in reason), done.reasons[0]),
        "seconds": round(sum(done.seconds.values()), 2),
    }


def _of_release(done: Released) -> dict[str, Any]:
    scores = done.scores["candidate"]
    return {
        "decision": done.decision,
        "version": done.version,
        "live": done.live,
        "what": f"{done.parts['index']}, {done.parts['prompt']}",
        "score": f"right {scores['right']:.3f}",
        "why": done.reasons[0],
        "seconds": round(sum(done.seconds.values()), 2),
    }


def _of_answer(answer: Answer) -> dict[str, Any]:
    cited = [f"{passage.document}:{passage.start}-{passage.end}" for passage in answer.cited]
    return {"question": answer.question, "text": answer.text, "refused": answer.refused, "cited": cited}


def _of_move(move: Move) -> dict[str, Any]:
    return {"decision": "rollback", "version": None, "live": move.after, "what": "alias moved", "why": move.reason}
