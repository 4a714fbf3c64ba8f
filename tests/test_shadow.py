"""Two releases asked again what people asked: which pairs there are, what they come to, and what is kept of them."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from prefect.client.orchestration import get_client

from tasks.answering.assistant import Assistant
from tasks.answering.service.tracing import TENANT_TAG, record_of
from tasks.config.settings import Home
from tasks.config.shadow import ShadowConfig
from tasks.errors import ConfigError, ModelError
from tasks.evaluation.golden import GoldenQuery
from tasks.evaluation.pairs import Pair, Question, Reply, most_unlike, worth
from tasks.records import Answer, Passage, Sentence
from tasks.registry.connection import connect
from tasks.registry.runs import read_text
from tasks.registry.traces import assess, experiment_of, new_trace_id, write_traces
from tasks.registry.versions import load_manifest
from tasks.releases import ENTRY_POINT, open_release
from tasks.replay import questions_of, replay
from tests.command import Tandem
from tests.homes import copy_home, use_home
from tests.passages import passage
from tests.released import NAME, QUESTION, register_manifest, two_releases

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

    def fail(self: Assistant, question: str, tenant: str | None = None) -> Answer:
        calls[0] += 1
        if self.versions["release"] == SILENT or calls[0] > 4:
            raise ModelError("the model at http://127.0.0.1 does not answer")
        return ask(self, question, tenant)

    monkeypatch.setattr(Assistant, "answer", fail)
    pairs, outcome = replay.fn(configured(), "desk@2", SILENT, questions)
    assert [pair.counts for pair in pairs] == [True] * 2 + [False] * 62
    assert [pair.difference for pair in pairs[:2]] == [-1.0, -1.0]
    assert outcome == "undecided"  # 62 pairs without a difference would be no worse
    with pytest.raises(ModelError, match="neither desk@2 nor desk@3 answered any of 64 questions: the model at"):
        replay.fn(configured(), "desk@2", SILENT, questions)


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
