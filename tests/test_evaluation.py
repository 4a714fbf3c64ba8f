"""Evaluations: releases asked the same questions, and each failure at the stage of the answer that it comes from."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tasks.config.evaluation import AnswersConfig
from tasks.config.settings import Home
from tasks.evaluation.golden import GoldenQuery
from tasks.evaluation.scores import make_score
from tasks.evaluation.stages import Row, judge_suite, score_rows, slices, worst
from tasks.records import Answer, Passage, Sentence
from tasks.registry.connection import connect
from tasks.registry.runs import read_text
from tests.command import Tandem, golden_of_nights
from tests.passages import passage

CONF = Path(__file__).resolve().parents[1] / "conf"
RIGHT = passage("Green tea is steeped at eighty degrees.", document="docs/tea.md")
OTHER = passage("It is red.", document="docs/bus.md")
QUERY = GoldenQuery("how hot", ("docs/tea.md",), ("eighty degrees",), "q1", "north", "lookup")


def answer(*cited: Passage, text: str = "", passages: tuple[Passage, ...] = ()) -> Answer:
    """One that quotes these; a refusal where it quotes nothing."""
    read = tuple(dict.fromkeys((*cited, *passages)))
    sentences = tuple(Sentence(text or each.text, (read.index(each) + 1,)) for each in cited)
    said = " ".join(sentence.text for sentence in sentences) or "I do not know."
    return Answer("how hot", said, sentences, read, not cited, 0.5, {"release": "desk@1"})


def row(whole: Answer, given: Answer | None = None, query: GoldenQuery = QUERY, without: Answer | None = None) -> Row:
    return Row(query, whole.passages, given or answer(RIGHT), whole, without or answer(), 0.5)


@pytest.mark.parametrize(
    ("wrong", "address"),
    [
        (row(answer(RIGHT)), ""),
        (row(answer(OTHER)), "retrieval"),
        (row(answer(passages=(RIGHT, OTHER))), "refusal"),
        (row(answer(OTHER, passages=(RIGHT,))), "distraction"),
        (row(answer(RIGHT, text="At ninety.")), "distraction"),
        (row(answer(OTHER, passages=(RIGHT,)), given=answer(RIGHT, text="At ninety.")), "generation"),
    ],
)
def test_a_failure_has_the_address_of_the_stage_that_it_comes_from(wrong: Row, address: str) -> None:
    assert wrong.address == address


def test_scores_are_those_worked_out_by_hand() -> None:
    several = GoldenQuery("how hot and how red", ("docs/tea.md", "docs/bus.md"), (), "q2", "south", "howto")
    rows = [
        row(answer(RIGHT)),
        row(answer(OTHER, RIGHT), query=several, without=answer(OTHER)),
        row(answer(passages=(RIGHT,)), query=GoldenQuery("how warm", ("docs/tea.md",), ("warm",), "q3")),
    ]
    found = {name: score.estimate.mean for name, score in score_rows(rows).items()}
    assert found["right"] == pytest.approx(2 / 3)
    assert found["recall@5"] == 1
    assert found["exact_match"] == 0
    assert found["token_f1"] == pytest.approx((2 * 2 / (7 + 2) + 0) / 2)  # of seven words two are the answer's
    assert found["citation_precision"] == found["citation_recall"] == found["support"] == 1
    assert found["refusal_precision"] == pytest.approx(2 / 3)  # q3 wrongly; q1 and q3 without their documents rightly
    assert found["refusal_recall"] == pytest.approx(2 / 3)
    assert {name: len(of) for name, of in slices(rows).items()} == {
        "slice howto": 1,
        "slice lookup": 1,
        "source docs": 3,
        "tenant north": 1,
        "tenant south": 1,
    }


def test_the_worst_are_of_every_address_in_turn() -> None:
    refused, distracted = row(answer(passages=(RIGHT,))), row(answer(OTHER, passages=(RIGHT,)))
    assert worst([row(answer(RIGHT)), refused, refused, distracted], 2) == [distracted, refused]


def test_floors_and_losses_decide_and_are_said() -> None:
    ids = [f"q{number}" for number in range(40)]
    good, bad = (make_score("right", ids, [value] * 40) for value in (1.0, 0.0))
    config = AnswersConfig(name="s", questions="q", releases=("a@1", "b@1"), max_loss={"right": 0.1})
    assert judge_suite(config, {"a@1": {"right": good}, "b@1": {"right": bad}})[0] == "passed"
    decision, reasons = judge_suite(config, {"a@1": {"right": bad}, "b@1": {"right": good}})
    assert decision == "failed"
    assert reasons[0].startswith("A loss of more than 0.100 that is no noise: right 0.000, b@1 1.000")
    floors = config.model_copy(update={"max_loss": {}, "floors": {"right": 0.5, "wrong": 0.5}})
    assert judge_suite(floors, {"a@1": {"right": bad}}) == (
        "failed",
        ("right 0.000 is below its floor of 0.500.", "There is no score wrong: there are right."),
    )


def test_two_releases_are_asked_the_same_and_every_answer_is_kept(
    home_of_nights: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tandem: Tandem
) -> None:
    conf = tmp_path / "conf"
    for kind in ("prompts", "policies"):
        shutil.copytree(CONF / kind, conf / kind)
    monkeypatch.setenv("TANDEM_CONF", str(conf))
    release = {"name": "desk", "policy": "extractive", "golden": str(golden_of_nights()), "promote": "auto"}
    for index in ("docs@2", "docs@3"):
        (tmp_path / "desk.yaml").write_text(
            yaml.safe_dump(release | {"index": index, "lock_minutes": 0, "gate": {"max_loss": 1.0}})
        )
        assert tandem("release", tmp_path / "desk.yaml").status == 0
    questions = tmp_path / "questions.jsonl"
    tea = {"query": "how hot is green tea steeped", "relevant": ["docs/tea.md"], "answers": ["eighty degrees"]}
    questions.write_text(golden_of_nights().read_text() + json.dumps(tea) + "\n")
    suite = {
        "name": "desk",
        "questions": str(questions),
        "releases": ["desk@champion", "desk@1"],
        "floors": {"recall@5": 0.9},
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    said = tandem("evaluate", tmp_path / "suite.yaml", "--json")
    assert said.status == 0, said.err
    assert list(said.json["scores"]) == ["desk@2", "desk@1"]
    run = said.json["run_id"]
    client = connect(home_of_nights)
    table = json.loads(read_text(client, run, "answers.json"))
    column = table["columns"].index
    tea_rows = [row for row in table["data"] if row[column("question")] == tea["query"]]
    assert [(row[column("release")], row[column("right")], row[column("address")]) for row in tea_rows] == [
        ("desk@2", True, ""),
        ("desk@1", False, "generation"),
    ]
    report = read_text(client, run, "report.md")
    assert "# desk: desk@2 passed" in report
    assert "desk@2 beside the others, question by question" in report

    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite | {"releases": ["desk@1"], "floors": {"token_f1": 0.9}}))
    failed = tandem("evaluate", tmp_path / "suite.yaml")
    assert failed.status == 1
    assert "is below its floor of 0.900" in failed.out
    assert tandem("evaluate", tmp_path / "nowhere.yaml").status == 2
