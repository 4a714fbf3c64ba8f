"""A candidate beside the champion: on what people asked before, and on what they ask now, until it is judged."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from tasks.answering.assistant import Assistant
from tasks.answering.service.trial import Asked, Contest, Conversation, Mode, Thumb, Trial, _Running
from tasks.config.service import ServiceConfig, TrialConfig
from tasks.config.settings import Home
from tasks.config.shadow import ShadowConfig
from tasks.errors import ConfigError, ModelError
from tasks.evaluation.golden import GoldenQuery
from tasks.evaluation.pairs import Pair, Question, Reply, most_unlike, worth
from tasks.records import Answer, Passage, Sentence
from tasks.registry.connection import connect, registry
from tasks.registry.pointers import hold, unhold
from tasks.registry.runs import read_text
from tasks.registry.traces import assess
from tasks.registry.versions import load_manifest
from tasks.releases import ENTRY_POINT, open_release
from tasks.replay import questions_of, replay
from tasks.trial import Paired, Unpaired
from tests.command import Tandem
from tests.homes import copy_home, use_home
from tests.passages import passage
from tests.released import NAME, QUESTION, Serving, record, register_manifest, served, two_releases
from tests.waiting import wait_for

QUICK = {"max_loss": 0.2, "confidence": 0.9}
ASKED = (
    QUESTION,
    "how long is green tea steeped",
    "how heavy may a lorry on the old bridge be",
    "when leaves the ferry",
)
POLITE = (
    "",
    "please tell me ",
    "I would like to know ",
    "do you know ",
    "say, ",
    "a guest asks ",
    "today, ",
    "again, ",
)
SILENT = "desk@3"
"""Refuses everything."""


@pytest.fixture(scope="module")
def shared(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Releases 1 to 3, and 64 traces of release 2: every question asked of both tenants, the oldest first."""
    with pytest.MonkeyPatch.context() as patch:
        home = use_home(copy_home(two_releases(), tmp_path_factory.mktemp("shadow") / "home"), patch)
        client = connect(home)
        manifest = load_manifest(client, NAME, 2)
        silent = manifest | {"tag": "v3", "grounding": manifest["grounding"] | {"threshold": 2.0}}
        assert register_manifest(client, NAME, silent, ENTRY_POINT) == 3
        assistant = open_release(NAME, 2, home)
        questions = [f"{polite}{asked}" for polite in POLITE for asked in ASKED]
        record(client, assistant, [(each, tenant) for each in questions for tenant in ("north", "south")])
        yield home


def settings(**changes: Any) -> dict[str, Any]:
    return {"name": "desk", "champion": "desk@champion", "candidate": SILENT, "max_loss": 0.2} | changes


def configured(**changes: Any) -> ShadowConfig:
    return ShadowConfig.model_validate(settings(**changes))


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "shadow.yaml"
    path.write_text(yaml.safe_dump(settings(**changes)))
    return path


def test_a_worse_candidate_is_found_before_everything_is_asked_and_the_verdict_is_kept(
    shared: Home, tmp_path: Path, tandem: Tandem
) -> None:
    said = tandem("shadow", write(tmp_path), "--json")
    assert said.status == 1, said.err
    done = said.json
    assert (done["champion"], done["candidate"], done["decision"]) == ("desk@2", SILENT, "worse")
    assert done["counts"]["questions"] == 64
    assert done["counts"]["pairs"] < 30
    assert done["scores"][SILENT]["refused"] == 1.0
    assert done["difference"][2] < -0.2
    client = connect(shared)
    run = client.get_run(done["run_id"])
    assert {run.data.tags[f"tandem.{name}"] for name in ("decision", "champion", "candidate")} == {
        "worse",
        "desk@2",
        SILENT,
    }
    assert run.info.status == "FINISHED"
    table = json.loads(read_text(client, done["run_id"], "pairs.json"))
    assert len(table["data"]) == done["counts"]["pairs"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["question"], row["tenant"]) for row in rows[:2]] == [(QUESTION, "north"), (QUESTION, "south")]
    assert [row["champion cites"].partition("#")[0] for row in rows[:2]] == ["north/tea.md", "south/tea.md"]
    assert {row["champion answer"] for row in rows} == {""}  # the traces keep no answers
    report = read_text(client, done["run_id"], "report.md")
    assert f"# desk: {SILENT} is worse than desk@2" in report
    assert QUESTION not in report
    with get_client(sync_client=True) as prefect_client:
        shown = [each.data for each in prefect_client.read_artifacts() if each.key == "shadow-desk"]
    assert report.splitlines()[0] in str(shown[0])


def test_a_candidate_that_answers_alike_is_no_worse(shared: Home, tmp_path: Path, tandem: Tandem) -> None:
    said = tandem("shadow", write(tmp_path, candidate="desk@2"))
    assert said.status == 0, said.err
    assert "desk@2 against desk@2: no worse" in said.out
    undecided = tandem("shadow", write(tmp_path, candidate="desk@2", max_pairs=5), "--json")
    assert (undecided.status, undecided.json["decision"], undecided.json["counts"]["pairs"]) == (1, "undecided", 5)
    assert "To know, raise max_pairs." in undecided.json["reasons"][0]


def test_what_was_asked_twice_is_asked_once_in_order_of_time_and_feedback_is_kept(shared: Home) -> None:
    client, assistant = connect(shared), open_release(NAME, 2, shared)
    asked = [(QUESTION, "north"), ("how old is the moon", "north"), (QUESTION, "north"), (QUESTION, "south")]
    first, _, _, last = record(client, assistant, asked, "answers", "answers-told")
    assess(client, first, by="somebody", thumb=True, correction="At seventy.")
    assess(client, last, by="somebody", thumb=True)
    assess(client, last, by="somebody", thumb=False)  # thinks again
    found = questions_of(configured(experiment="answers-told"), shared)
    assert [(one.text, one.tenant) for one in found] == asked[1:]
    by_id = {one.id: one for one in found}
    assert (by_id[first].correction, by_id[first].liked) == ("At seventy.", frozenset({"north/tea.md"}))
    assert (by_id[last].disliked, by_id[last].liked, by_id[last].basis) == (True, None, "support")
    assert by_id[first].keeps_answers
    newest = questions_of(configured(experiment="answers-told", max_pairs=1), shared)
    assert [one.id for one in newest] == [last]


def test_without_recorded_questions_the_error_names_the_setting_that_keeps_them(shared: Home) -> None:
    with pytest.raises(ConfigError, match="answers-nowhere holds no trace of desk of the last 7 days: let `tandem"):
        questions_of(configured(experiment="answers-nowhere"), shared)
    client, assistant = connect(shared), open_release(NAME, 2, shared)
    record(client, assistant, [(QUESTION, "north")], "none", "answers-quiet")
    sentence = r"none of the 1 traces of desk .* set `tracing: \{texts: questions\}` in conf/service/desk.yaml"
    with pytest.raises(ConfigError, match=sentence):
        questions_of(configured(experiment="answers-quiet"), shared)


def test_golden_queries_are_asked_where_nothing_is_recorded_and_judged_by_their_answers(
    shared: Home, tmp_path: Path, tandem: Tandem
) -> None:
    golden = tmp_path / "golden.jsonl"
    lines = [
        {"query": f"{polite}{QUESTION}", "tenant": "north", "relevant": ["north/tea.md"], "answers": ["eighty degrees"]}
        for polite in POLITE
    ]
    golden.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    said = tandem("shadow", write(tmp_path, questions=str(golden), candidate="desk@1", similar=1.0), "--json")
    assert said.json["scores"]["desk@2"]["worth"] == 1.0
    assert said.json["scores"]["desk@1"]["worth"] == 0.0  # it says sixty
    assert said.json["counts"]["judged by known answer"] == said.json["counts"]["pairs"]
    assert said.json["counts"]["agree"] == 0
    client = connect(shared)
    assert "eighty degrees" in read_text(client, said.json["run_id"], "pairs.json")
    assert f"| please tell me {QUESTION} |" in read_text(client, said.json["run_id"], "report.md")


def test_a_question_that_both_fail_at_says_nothing_and_a_failure_of_one_is_worth_nothing(
    shared: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = questions_of(configured(), shared)
    ask, calls = Assistant.answer, [0]

    def fail(self: Assistant, question: str, tenant: str | None = None, **more: Any) -> Answer:
        calls[0] += 1
        if self.versions["release"] == SILENT or calls[0] > 4:
            raise ModelError("the model at http://127.0.0.1 does not answer")
        return ask(self, question, tenant, **more)

    monkeypatch.setattr(Assistant, "answer", fail)
    pairs, outcome = replay.fn(configured(), "desk@2", SILENT, questions)
    assert [pair.counts for pair in pairs] == [True] * 2 + [False] * 62
    assert [pair.difference for pair in pairs[:2]] == [-1.0, -1.0]
    assert outcome == "undecided"  # 62 pairs without a difference would be no worse
    with pytest.raises(ModelError, match="neither desk@2 nor desk@3 answered any of 64 questions: the model at"):
        replay.fn(configured(), "desk@2", SILENT, questions)


def waits(client: MlflowClient, number: int) -> None:
    registry(client).set_registered_model_alias(NAME, "candidate", str(number))


def verdicts(client: MlflowClient, mode: str) -> list[dict[str, Any]]:
    """The tags and metrics of what was kept, newest first."""
    experiment = client.get_experiment_by_name(f"live-{mode}-{NAME}")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return [run.data.tags | run.data.metrics for run in runs]


def ask(serving: Serving, question: str, *earlier: str, **more: Any) -> tuple[str, bool]:
    """The release that answers the last question of a conversation, and whether it refuses."""
    messages = [{"role": "user", "content": each} for each in (*earlier, question)]
    body = {"model": NAME, "messages": messages, "tenant": "north", **more}
    response = serving.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()["versions"]["release"], response.json()["refused"]


def trial_of(serving: Serving) -> Trial:
    assert serving.service.trial
    return serving.service.trial


def test_a_canary_gets_whole_conversations_and_none_any_more_once_it_is_worse(
    shared: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(shared)
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    waits(client, 3)
    with served(shared, canary={"share": 0.5, **QUICK}) as serving:
        wait_for(lambda: serving.ready()["tried"] == SILENT)
        assert serving.metric('tandem_trial_running{mode="canary"}') == 1
        goes = {user: ask(serving, QUESTION, user=user) for user in map(str, range(12))}
        assert set(goes.values()) == {("desk@2", False), (SILENT, True)}
        for user, way in goes.items():
            assert ask(serving, "when leaves the ferry", QUESTION, user=user)[0] == way[0]
        assert serving.metric('tandem_trial_compared_total{mode="canary"}') <= 12  # first questions only
        for number in range(200):
            if trial_of(serving).contest is None:
                break
            ask(serving, QUESTION, user=f"more {number}")
            wait_for(lambda: trial_of(serving)._queue.empty())
        assert number < 100
        assert {ask(serving, QUESTION, user=user)[0] for user in goes} == {"desk@2"}
        wait_for(lambda: verdicts(client, "canary") != [])
        assert serving.ready()["problems"] == []
    [kept] = verdicts(client, "canary")
    assert (kept["tandem.decision"], kept["tandem.champion"], kept["tandem.candidate"]) == ("worse", "desk@2", SILENT)
    assert kept["candidate_cites"] == 0
    assert kept["champion_cites_low"] > 0.2
    with get_client(sync_client=True) as prefect_client:
        shown = [str(each.data) for each in prefect_client.read_artifacts() if each.key == "live-canary-desk"]
    assert shown[0].startswith(f"# {SILENT} as canary beside desk@2: worse")
    with served(shared, canary={"share": 0.5, **QUICK}) as serving:  # started again
        wait_for(lambda: trial_of(serving)._over is not None)
        assert {ask(serving, QUESTION, user=user)[0] for user in goes} == {"desk@2"}


def test_a_canary_that_fails_costs_no_request_and_one_that_does_not_load_gets_none(
    shared: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(shared)
    waits(client, 1)
    answer = Assistant.answer

    def fail(self: Assistant, question: str, tenant: str | None = None, **more: Any) -> Answer:
        if self.versions["release"] == "desk@1":
            raise ModelError("the model does not answer")
        return answer(self, question, tenant, **more)

    with served(shared, canary={"share": 0.5}) as serving:
        wait_for(lambda: serving.ready()["tried"] == "desk@1")
        monkeypatch.setattr(Assistant, "answer", fail)
        assert {ask(serving, QUESTION, user=str(user)) for user in range(12)} == {("desk@2", False)}
        assert serving.metric('tandem_trial_failures_total{mode="canary"}') > 0
        hold(client, NAME, by="on call", reason="let it be quiet")
        wait_for(lambda: serving.ready()["tried"] is None)
        unhold(client, NAME, by="on call", reason="quiet enough")
        wait_for(lambda: serving.ready()["tried"] == "desk@1")
        manifest = load_manifest(client, NAME, 2) | {"index": "docs@9", "tag": "v4"}
        waits(client, register_manifest(client, NAME, manifest, ENTRY_POINT))
        wait_for(lambda: serving.ready()["problems"] != [])
        assert "desk@4 shall be tried as canary and is not: docs has no version 9" in serving.ready()["problems"][0]
        assert serving.ready()["tried"] is None
        assert ask(serving, QUESTION)[0] == "desk@2"
        registry(client).delete_registered_model_alias(NAME, "candidate")
        wait_for(lambda: serving.ready()["problems"] == [])


def test_a_shadow_is_asked_copies_while_everybody_is_answered_by_the_live_release(
    shared: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(shared)
    waits(client, 3)
    let_go, answer = Event(), Assistant.answer

    def slow(self: Assistant, question: str, tenant: str | None = None, **more: Any) -> Answer:
        if self.versions["release"] == SILENT:
            let_go.wait(60)
        return answer(self, question, tenant, **more)

    monkeypatch.setattr(Assistant, "answer", slow)
    with served(shared, shadow={"share": 1, "waiting": 4, **QUICK}) as serving:
        wait_for(lambda: serving.ready()["tried"] == SILENT)
        questions = [f"{polite}{asked}" for asked in ASKED for polite in POLITE]
        begun = time.monotonic()
        assert {ask(serving, question)[0] for question in questions[:8]} == {"desk@2"}
        assert time.monotonic() - begun < 30  # the copies hang, and nobody waits for them
        assert serving.metric('tandem_trial_dropped_total{mode="shadow"}') == 3  # four wait, and one is asked
        let_go.set()
        wait_for(lambda: trial_of(serving).compared == 5)
        running = trial_of(serving)._running
        assert running
        ask(serving, questions[0])
        for question in questions[8:]:
            if trial_of(serving).contest is None:
                break
            assert ask(serving, question)[0] == "desk@2"
            wait_for(lambda: trial_of(serving)._queue.empty())
        wait_for(lambda: verdicts(client, "shadow") != [])
    [kept] = verdicts(client, "shadow")
    assert (kept["tandem.decision"], kept["candidate_refused"], kept["agree"]) == ("worse", 1, 0)
    assert kept["pairs"] == len(running.seen) < 25  # what is asked twice is one pair
    assert kept["difference_high"] < -0.2


def test_what_readers_say_of_a_canary_counts_once_an_answer() -> None:
    kept: list[Contest] = []
    trial = still_trial(kept.append)
    comparison = Unpaired(TrialConfig(share=0.5, **QUICK))
    trial._running = running = _Running(None, Contest("desk@2", "desk@1", comparison))  # type: ignore[arg-type]
    for answer_id, release in (("tr-1", "desk@1"), ("tr-1", "desk@1"), ("tr-2", "desk@2"), ("tr-3", "desk@9")):
        trial.thumb(answer_id, release, False)
    while not trial._queue.empty():
        trial._take(*trial._queue.get())
    facts = comparison.facts()
    assert (facts["candidate_liked_of"], facts["champion_liked_of"]) == (1, 1)
    for number in range(40):
        comparison.take(Thumb(str(number), number % 2 == 0, number % 2 == 1))
    assert comparison.outcome == "worse"  # by thumbs alone
    assert "share of thumbs that are up -0." in comparison.say()
    trial._end(running)
    assert kept == [running.contest]


@pytest.mark.parametrize(
    ("mode", "share", "slow", "facts"),
    [
        ("canary", 1, "desk@1", {"candidate_cites": 0, "candidate_failed": 1}),
        ("canary", 0, "desk@2", {"champion_cites": 0, "candidate_failed": 0}),
        ("canary", 1, "", {"candidate_cites": 1, "candidate_failed": 0}),
        ("shadow", 1, "desk@1", {"pairs": 1, "candidate_failed": 1}),
        ("shadow", 1, "desk@2", None),
        ("shadow", 1, "", {"pairs": 1, "candidate_failed": 0}),
    ],
)
def test_an_answer_that_comes_too_late_is_as_bad_as_none(
    shared: Home, monkeypatch: pytest.MonkeyPatch, mode: Mode, share: float, slow: str, facts: dict[str, float] | None
) -> None:
    answer = Assistant.answer

    def answer_late(self: Assistant, question: str, tenant: str | None = None, **more: Any) -> Answer:
        if self.versions["release"] == slow:
            time.sleep(1.2)
        return answer(self, question, tenant, **more)

    monkeypatch.setattr(Assistant, "answer", answer_late)
    champion, candidate = (open_release(NAME, number, shared) for number in (2, 1))
    trial = still_trial(None, mode=mode, share=share, seconds=1)
    comparison = Paired(TrialConfig()) if mode == "shadow" else Unpaired(TrialConfig())
    trial._running = _Running(candidate, Contest("desk@2", "desk@1", comparison))
    given = trial.answer(champion, Asked(QUESTION, "north", False, Conversation("somebody", True)))
    assert given.versions["release"] == ("desk@1" if mode == "canary" and share else "desk@2")
    if facts is None:  # nobody got the champion's answer either
        assert trial._queue.empty()
        return
    trial._take(*trial._queue.get_nowait())
    assert {name: comparison.facts()[name] for name in facts} == facts


def test_a_candidate_that_cannot_be_compared_is_given_up_and_the_reason_is_told(
    shared: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(self: Paired, observed: object) -> None:
        raise ZeroDivisionError("no pair has a worth")

    monkeypatch.setattr(Paired, "take", break_off)
    client = connect(shared)
    waits(client, 1)
    with served(shared, shadow={"share": 1}) as serving:
        wait_for(lambda: serving.ready()["tried"] == "desk@1")
        assert ask(serving, QUESTION)[0] == "desk@2"
        wait_for(lambda: serving.ready()["problems"] != [])
        reason = "desk@1 is tried no more: it cannot be compared: ZeroDivisionError: no pair has a worth"
        assert serving.ready()["problems"] == [reason]
        assert serving.metric('tandem_trial_running{mode="shadow"}') == 0
        assert ask(serving, QUESTION)[0] == "desk@2"
        registry(client).delete_registered_model_alias(NAME, "candidate")
        wait_for(lambda: serving.ready()["problems"] == [])
        waits(client, 1)
        time.sleep(0.5)  # some questions to the registry
        assert serving.ready()["tried"] is None
        waits(client, 3)
        wait_for(lambda: serving.ready()["tried"] == SILENT or trial_of(serving)._over == ("desk@2", SILENT))
    assert {kept["tandem.candidate"] for kept in verdicts(client, "shadow")} <= {SILENT}


def still_trial(keep: Any, mode: Mode = "canary", share: float = 0.5, seconds: float = 60) -> Trial:
    """One whose thread is not started."""
    return Trial(
        mode,
        TrialConfig(share=share),
        None,  # type: ignore[arg-type]
        candidate=lambda: None,
        load=lambda number: pytest.fail("nothing is loaded"),
        compare=lambda: Unpaired(TrialConfig()),
        judged=lambda champion, candidate: False,
        keep=keep,
        seconds=seconds,
        poll_seconds=1,
        retry_seconds=1,
    )


def test_the_two_ways_to_try_a_candidate_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="try the candidate one way at a time"):
        ServiceConfig.model_validate({"canary": {"share": 0.1}, "shadow": {"share": 0.1}})
    with pytest.raises(ValueError, match="nobody would be left to compare with"):
        ServiceConfig.model_validate({"canary": {"share": 1}})


TEA, BUS = passage("Green tea is steeped hot.", document="tea.md"), passage("The bus is red.", document="bus.md")


def reply(*cited: Passage, text: str = "") -> Reply:
    """An answer that quotes these; a refusal where it quotes nothing."""
    sentences = tuple(Sentence(text or each.text, (number,)) for number, each in enumerate(cited, start=1))
    return Reply(Answer("how", " ".join(each.text for each in sentences), sentences, cited, not cited, 0.5, {}))


@pytest.mark.parametrize(
    ("question", "tea", "bus", "refused"),
    [
        (Question("1", "how"), 1.0, 1.0, 0.0),
        (Question("1", "how", golden=GoldenQuery("how", ("tea.md",), ("hot",))), 1.0, 0.0, 0.0),
        (Question("1", "how", correction="Steeped hot"), 4 / 7, 0.0, 0.0),
        (Question("1", "how", liked=frozenset({"tea.md"})), 1.0, 0.0, 0.0),
        (Question("1", "how", liked=frozenset()), 0.0, 0.0, 1.0),
        (Question("1", "how", correction="Steeped hot", liked=frozenset({"bus.md"})), 4 / 7, 0.0, 0.0),
    ],
)
def test_an_answer_is_worth_what_is_known_best_of_its_question(
    question: Question, tea: float, bus: float, refused: float
) -> None:
    assert [worth(each, question) for each in (reply(TEA), reply(BUS), reply())] == pytest.approx([tea, bus, refused])
    assert worth(Reply(None, "gone"), question) == 0


def test_pairs_agree_by_documents_and_words_and_the_most_unlike_come_first() -> None:
    question = Question("1", "how")
    same, silent, other = (Pair(question, reply(TEA), each) for each in (reply(TEA), reply(), reply(BUS)))
    reworded = Pair(question, reply(TEA), reply(TEA, text="Hot is how green tea is steeped here by all of us"))
    both_refuse = Pair(question, reply(), reply())
    assert [pair.agrees(0.5) for pair in (same, silent, other, reworded, both_refuse)] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert not reworded.agrees(0.9)
    assert most_unlike([same, reworded, other, silent, both_refuse], 2) == [silent, other]
    assert replace(same, candidate=Reply(None, "gone")).agrees(0) is False
