"""Language models that judge answers: asked at a stand-in for an endpoint, with verdicts that are known beforehand."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.evaluate import evaluate
from tasks.assess import DEAD, assess
from tasks.config.evaluation import AnswersConfig, JudgeConfig
from tasks.errors import ConfigError
from tasks.evaluation.agreement import agree, load_labels
from tasks.evaluation.golden import GoldenQuery
from tasks.evaluation.judgements import NEVER_COMPARED, Panel, hear, judge_notes, score_judgements, version_of
from tasks.evaluation.scores import comparable, make_score
from tasks.evaluation.stages import Row, judge_suite
from tasks.records import Answer, Judgement, Sentence
from tasks.registry.connection import connect
from tasks.registry.runs import read_metrics, read_text
from tests.endpoint import Served, serve
from tests.homes import copy_home, use_home
from tests.passages import passage
from tests.released import QUESTION, two_releases

ANNA = "anna.larsen@harbour.org"
OWN = "Say yes where {{ outputs }} answers {{ inputs }} politely."


def says(result: object, **more: Any) -> list[dict[str, Any]]:
    return [{"content": json.dumps({"rationale": "so I find", "result": result}), **more}]


def by_words(**results: object) -> Callable[[Sequence[str]], list[dict[str, Any]]]:
    """A judge that says of an answer what is known by a word in it."""
    return lambda turns: says(next(result for word, result in results.items() if word in turns[-1]))


def judge_at(served: Served | None = None, **settings: Any) -> JudgeConfig:
    endpoint = {"base_url": served.config.base_url if served else "http://nowhere/v1", "model": "big"}
    given = {"name": "correct", "scorer": "Correctness", "endpoint": endpoint, "concurrency": 1} | settings
    return JudgeConfig.model_validate(given)


def suite(*judges: JudgeConfig, **settings: Any) -> AnswersConfig:
    return AnswersConfig(name="s", questions="q", releases=("a@1", "b@1"), judges=judges, **settings)


def row(question: str, text: str, expected: str = "eighty") -> Row:
    """A question that was answered so, from one passage; refused where there is no text."""
    found = passage(f"It stands: {text}", document="docs/tea.md")
    said = (Sentence(text, (1,)),) if text else ()
    whole = Answer(f"how {question}", f"{text} [1]", said, (found,), not text, 0.5, {})
    query = GoldenQuery(f"how {question}", ("docs/tea.md",), (), question)
    return Row(query, (found,), whole, whole, whole, 0, expected)


def verdicts(*passed: bool | None, model: str = "m") -> dict[str, Judgement]:
    version = version_of(judge_at(), model)
    return {f"q{number}": Judgement(each, "", model, judge=version) for number, each in enumerate(passed)}


def test_verdicts_become_a_score_with_its_interval_and_neither_refusals_nor_what_nobody_knows_are_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serve(by_words(Eighty="yes", Ninety="no", Seventy=False)) as served:
        judge = judge_at(served)
        answers = [row("hot", "Eighty."), row("cold", "Ninety."), row("warm", "Seventy."), row("red", "")]
        found = assess.fn(judge, "desk@1", [*answers, row("blue", "Nobody knows whether.", expected="")])
    assert found == {
        name: Judgement(passed, "so I find", "m", 7, 3, version_of(judge, "m"))
        for name, passed in (("hot", True), ("cold", False), ("warm", False))
    }
    [(name, score)] = score_judgements(found, 0.95).items()
    assert name == version_of(judge, "m")
    assert (score.rows, score.values) == (("hot", "cold", "warm"), (1.0, 0.0, 0.0))
    assert score.estimate.mean == pytest.approx(1 / 3)
    assert 0 <= score.estimate.low < score.estimate.mean < score.estimate.high <= 1
    assert {(asked["model"], asked["key"]) for asked in served.asked} == {("big", "Bearer secret")}


@pytest.mark.parametrize(
    ("scorer", "instructions", "read"),
    [
        ("Correctness", "", ("how hot", "Eighty.", "about eighty")),
        ("RelevanceToQuery", "", ("how hot", "Eighty.")),
        ("RetrievalGroundedness", "", ("how hot", "Eighty.", "It stands: Eighty.")),
        ("Guidelines", "Name no person.", ("how hot", "Eighty.", "Name no person.")),
        ("Instructions", OWN, ("how hot", "Eighty.", "It stands: Eighty.", "politely")),
    ],
)
def test_each_scorer_of_mlflow_reads_what_it_judges_by(scorer: str, instructions: str, read: tuple[str, ...]) -> None:
    with serve(lambda turns: says("yes")) as served:
        judge = judge_at(served, scorer=scorer, instructions=instructions)
        found = assess.fn(judge, "desk@1", [row("hot", "Eighty.", expected="about eighty")])
    assert found["hot"].passed is True
    [asked] = served.asked
    text = "\n".join(turn["content"] for turn in asked["messages"])
    assert [words for words in read if words not in text] == []


def test_what_is_no_verdict_is_left_out_counted_and_named() -> None:
    with serve(by_words(Eighty="yes", Ninety="perhaps", Seventy="no"), failures=[400]) as served:
        judge = judge_at(served)
        rows = [row("failed", "Eighty."), row("hot", "Eighty."), row("odd", "Ninety."), row("warm", "Seventy.")]
        found = assess.fn(judge, "a@1", rows)
    assert [judgement.passed for judgement in found.values()] == [None, True, None, False]
    [score] = score_judgements(found, 0.95).values()
    assert score.rows == ("hot", "warm")
    [first, note] = judge_notes(Panel({"a@1": {"correct": found}}))
    assert first == NEVER_COMPARED
    assert note.startswith("correct gave no verdict on 2 of 4 answers of a@1: failed (the model big at http://127")
    assert 'odd (no verdict: {"rationale": "so I find", "result": "perhaps"})' in note


def test_an_answer_that_a_judge_takes_too_long_over_has_no_verdict() -> None:
    with serve(lambda turns: time.sleep(0.5) or says("yes")) as served:
        endpoint = {"base_url": served.config.base_url, "model": "big", "timeout_seconds": 0.1}
        found = assess.fn(judge_at(endpoint=endpoint), "a@1", [row("hot", "Eighty.")])
    assert found["hot"].passed is None
    assert "timed out" in found["hot"].why


def test_a_judge_without_a_verdict_on_most_answers_has_no_score_and_is_asked_no_more() -> None:
    half, most = verdicts(True, None), verdicts(True, None, None)
    assert len(score_judgements(half, 0.95)) == 1
    assert score_judgements(most, 0.95) == {}
    assert judge_notes(Panel({"a@1": {"correct": most}}))[1].endswith("Its score is not reported.")
    assert judge_suite(suite(judge_at(), floors={"correct": 0.5}), {"a@1": {}})[0] == "failed"
    with serve(lambda turns: [{"content": "Let me think."}]) as served:
        found = assess.fn(judge_at(served), "desk@1", [row(f"hot {number}", "Eighty.") for number in range(4 * DEAD)])
    assert len(found) == 4 * DEAD
    assert DEAD <= len(served.asked) < 2 * DEAD
    assert found["hot 39"].why.startswith("not asked")


def test_another_scorer_instruction_or_model_makes_another_version() -> None:
    guided = judge_at(scorer="Guidelines", instructions="Be kind.")
    small = judge_at(endpoint={"base_url": "http://nowhere/v1", "model": "small"})
    brief = guided.model_copy(update={"instructions": "Be brief."})
    judges = (judge_at(), judge_at(scorer="RelevanceToQuery"), guided, brief, small)
    assert len({version_of(judge, model) for judge in judges for model in ("m1", "m2")}) == 10


def test_scores_of_two_versions_of_a_judge_are_never_compared() -> None:
    """The endpoint has another model for the second release."""
    judged = {"a@1": verdicts(*[False] * 40, model="m1"), "b@1": verdicts(*[True] * 40, model="m2")}
    scores = {release: score_judgements(of, 0.95) for release, of in judged.items()}
    assert comparable(scores["a@1"], scores["b@1"]) == {}
    config = suite(judge_at(), max_loss={"correct": 0.1})
    decision, [reason] = judge_suite(config, scores)
    assert decision == "failed"
    assert "cannot be compared" in reason
    same = {release: score_judgements(verdicts(*[release == "b@1"] * 40), 0.95) for release in judged}
    assert judge_suite(config, same)[1][0].startswith("A loss of more than 0.100 that is no noise: correct@")


def test_a_model_that_changes_half_way_gives_two_scores() -> None:
    with serve(lambda turns: says("yes", model="m2" if "Ninety" in turns[-1] else "m1")) as served:
        judge = judge_at(served)
        found = assess.fn(judge, "a@1", [row("hot", "Eighty."), row("cold", "Ninety."), row("warm", "Eighty.")])
    scores = score_judgements(found, 0.95)
    assert {name: score.rows for name, score in scores.items()} == {
        version_of(judge, "m1"): ("hot", "warm"),
        version_of(judge, "m2"): ("cold",),
    }


def test_two_releases_are_compared_on_the_answers_that_have_a_verdict_in_both() -> None:
    ours, theirs = (
        score_judgements(of, 0.95) for of in (verdicts(True, None, False, True), verdicts(False, True, False))
    )
    [(one, two)] = comparable(ours, theirs).values()
    assert (one.rows, one.values, two.values) == (("q0", "q2"), (1.0, 0.0), (0.0, 0.0))
    right = make_score("right", ["q0", "q1"], [1.0, 0.0])
    assert comparable({"right": right}, {"right": make_score("right", ["q0"], [1.0])}) == {}


def test_kappa_is_that_of_a_table_worked_out_by_hand() -> None:
    pairs = [(True, True)] * 4 + [(False, False)] * 3 + [(True, False)] * 2 + [(False, True)] * 1
    found = agree("correct@1", pairs, 0.95)
    # they agree on 0.7, and by chance on 0.6 · 0.5 + 0.4 · 0.5
    assert found.kappa
    assert found.kappa.mean == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert -1 <= found.kappa.low < found.kappa.mean < found.kappa.high <= 1
    assert found.counts == {(True, True): 4, (False, False): 3, (True, False): 2, (False, True): 1}


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([(True, True), (False, False)] * 4, "too few labels"),
        ([(True, True)] * 9 + [(True, False)], "every label is yes"),
    ],
)
def test_where_labels_cannot_tell_kappa_that_is_said(pairs: list[tuple[bool, bool]], why: str) -> None:
    found = agree("correct@1", pairs, 0.95)
    assert found.kappa is None
    assert found.note.startswith(why)


def test_a_label_counts_once_for_the_answer_that_was_read(tmp_path: Path) -> None:
    file = write(
        tmp_path / "labels.jsonl",
        {"judge": "correct", "id": "hot", "label": True, "answer": "Eighty."},
        {"judge": "correct", "question": "How COLD", "label": False},
        {"judge": "correct", "id": "warm", "label": True, "answer": "What is said no more."},
    )
    asked = {
        "a@1": [row("hot", "Sixty."), row("cold", "Ninety."), row("warm", "Seventy.")],
        "b@1": [row("hot", "Eighty."), row("cold", "Nine."), row("warm", "Seven.")],
    }
    said = {
        release: {"correct": {name: Judgement(passed, "", judge="correct@1") for name in ("hot", "cold", "warm")}}
        for release, passed in (("a@1", False), ("b@1", True))
    }
    panel = hear(said, asked, load_labels(file, ["correct"]), 0.95)
    [found] = panel.agreements
    assert found.judge == "correct@1"
    assert found.counts == {(True, True): 1, (False, False): 1}
    assert judge_notes(panel)[-1] == "1 of 3 labels are of no answer that has a verdict, and are left out."


def test_bad_labels_are_named_by_their_lines(tmp_path: Path) -> None:
    fine = {"judge": "correct", "id": "hot", "label": True}
    file = write(
        tmp_path / "labels.jsonl",
        fine,
        fine | {"label": "true"},
        fine | {"judge": "polite"},
        {"judge": "correct", "label": True},
        fine | {"lable": True},
    )
    with pytest.raises(ConfigError) as raised:
        load_labels(file, ["correct"])
    assert str(raised.value).split("\n  ")[1:] == [
        "line 2: `label`: input should be a valid boolean",
        "line 3: there is no judge polite: there are correct",
        "line 4: name the question by `id` or by `question`",
        "line 5: unknown key 'lable' (did you mean 'label'?)",
    ]


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"scorer": "Guidelines"}, "the scorer of judge correct is Guidelines: write its instructions"),
        ({"instructions": "Be kind."}, "the scorer of judge correct is Correctness: leave its instructions out"),
        ({"scorer": "Instructions", "instructions": "Is {{ answer }} right?"}, "correct have answer in two braces"),
        ({"scorer": "Instructions", "instructions": "Is it right?"}, "correct have nothing in two braces"),
        ({"endpoint": {"model": "big"}}, "endpoint.base_url"),
        ({"scorer": "Correct"}, "scorer"),
    ],
)
def test_a_judge_that_cannot_work_is_told_what_is_wrong(settings: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        judge_at(**settings)


def test_judges_have_different_names_and_labels_have_judges() -> None:
    with pytest.raises(ValidationError, match="two judges are called correct"):
        suite(judge_at(), judge_at(scorer="RelevanceToQuery"))
    with pytest.raises(ValidationError, match="labels are for judges, and there are none"):
        suite(labels="labels.jsonl")


def test_an_evaluation_keeps_verdicts_versions_and_agreement_and_sends_no_personal_data(
    prefect: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(use_home(copy_home(two_releases(), tmp_path / "home"), monkeypatch))
    questions = write(
        tmp_path / "questions.jsonl",
        {
            "id": "tea",
            "query": QUESTION,
            "answers": ["eighty degrees"],
            "relevant": ["north/tea.md"],
            "tenant": "north",
        },
        {"id": "anna", "query": "who makes the timetable", "answers": [ANNA], "relevant": ["south/contact.md"]},
    )
    plain = {"name": "desk", "questions": questions, "releases": ["desk@2", "desk@1"]}
    with serve(by_words(sixty="no", eighty="yes", Anna="yes")) as served:
        judge = judge_at(served)
        labels = write(tmp_path / "labels.jsonl", {"judge": "correct", "id": "tea", "label": True})
        settings = {"judges": [judge.model_dump()], "labels": labels, "floors": {"correct": 0.9}}
        done = evaluate(AnswersConfig.model_validate(plain | settings))
        sent = json.dumps(served.asked, ensure_ascii=False)
    name = version_of(judge, "m")
    assert done.decision == "passed"
    assert [scores[name] for scores in done.scores.values()] == [1.0, 0.5]
    assert "‹e-mail_address›" in sent
    assert ANNA not in sent
    metrics, kept = read_metrics(client, done.run_id), name.replace("@", "_at_")
    assert (metrics[f"desk_1_{kept}"], metrics["desk_1_correct_tokens_in"], metrics[f"{kept}_labels"]) == (0.5, 14, 1)
    assert json.loads(read_text(client, done.run_id, "judges.json"))[name]["answering_model"] == "m"
    table = json.loads(read_text(client, done.run_id, "answers.json"))
    column = table["columns"].index
    assert [row[column("judge correct")] for row in table["data"]] == ["yes", "yes", "no", "yes"]
    assert {row[column("judge correct version")] for row in table["data"]} == {name}
    report = read_text(client, done.run_id, "report.md")
    assert f"| desk@2 | correct | {name} | m | 2 | 0 | 14 | 6 |" in report
    assert f"| {name} | desk@1 | 2 | +0.500 |" in report
    assert "too few labels" in report
    assert NEVER_COMPARED in report

    without = evaluate(AnswersConfig.model_validate(plain))
    assert without.judges == {}
    assert list(without.scores["desk@2"]) == [each for each in done.scores["desk@2"] if each != name]
    assert "## Judges" not in read_text(client, without.run_id, "report.md")


def write(path: Path, *lines: dict[str, Any]) -> str:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return str(path)
