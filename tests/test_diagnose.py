"""Failed answers and their causes: faults made on purpose, the rules, a suite and what people said of answers."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client

from tasks.answering.sentences import without_frame
from tasks.config.diagnosis import DiagnoseConfig
from tasks.config.settings import Home
from tasks.diagnose import broken_form, questions_of
from tasks.errors import ConfigError
from tasks.evaluation.diagnosis import RULES, Evidence, Failure, Finding, find_cause, kind_of, share_of
from tasks.evaluation.golden import GoldenQuery
from tasks.evaluation.stages import Row
from tasks.lookup import Wanted
from tasks.records import Answer, Cause, Sentence
from tasks.registry.connection import connect
from tasks.registry.runs import read_metrics, read_tags, read_text
from tasks.registry.traces import assess
from tasks.releases import open_release
from tasks.remedies import REMEDIES, lower_threshold
from tests.command import Tandem
from tests.faults import OURS, Fault, Known, Page, Workshop, as_correction, diagnosed, make_faults
from tests.homes import copy_home, use_home
from tests.passages import passage
from tests.released import NAME, NOT_THERE, QUESTION, record, two_releases

PAGES = {
    "tea": "Rain falls often. In our kitchen green tea, which monks bring from the hills on the backs of their mules "
    "when autumn has come and the roads are dry, is always made with water of eighty degrees. Cups stand about.",
    "bridge": "The water is wide. The heaviest lorry that the old iron bridge carries, since a flood tore two of its "
    "pillars away one night and masons set others in their place, weighs no more than seven tonnes. Cyclists push.",
    "library": "Everybody may come in. From the town library novels are lent to members, who pay nothing but have "
    "to bring a paper with their name and the street where they live, for all of three weeks. Be quiet.",
    "ferry": "Fog is common. The ferry to the island leaves on weekdays, as long as neither storms nor ice keep its "
    "captain and his three sailors ashore with their hands in their pockets, at nine in the morning. Dogs are free.",
    "museum": "There are forty rooms. The great hall of the museum shows, between two rows of columns and under a "
    "ceiling that an Italian painted for a prince who never paid him, some whale skeletons. Guides talk.",
    "bakery": "It smells of rye. The bakery behind the church sells from six, when most of us are in bed and only "
    "nurses and drivers of the first trams pass by its lit window, cardamom buns. Cakes are ordered.",
}
ASKED = {
    "tea": ("At how many degrees is green tea steeped in the kitchen?", "eighty degrees"),
    "bridge": ("What is the heaviest lorry that the old iron bridge carries?", "seven tonnes"),
    "library": ("For how long are novels lent to members of the town library?", "three weeks"),
    "ferry": ("When does the ferry to the island leave on weekdays?", "nine in the morning"),
    "museum": ("What does the great hall of the museum show?", "whale skeletons"),
    "bakery": ("What does the bakery behind the church sell from six?", "cardamom buns"),
}
KNOWN = [
    Known(page, 0, GoldenQuery(question, (f"{OURS}/{page}.md",), (answer,), id=page, tenant=OURS))
    for page, (question, answer) in ASKED.items()
]
ONE_A_CAUSE = (
    "document dropped",
    "passages of 16 tokens",
    "page in another language",
    "page of another tenant",
    "irrelevant passages quoted",
    "contradicting page",
    "telegram style",
    "threshold too high",
    "address withheld",
)
"""The others need a language model or more pages; the benchmark has them all."""
FAULTS = [
    fault
    for fault in make_faults({name: Page(text) for name, text in PAGES.items()}, KNOWN, seed=4, passages=2)
    if fault.name in ONE_A_CAUSE
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        yield Workshop(use_home(Home(folder / "home"), patch), folder / "pages")


@pytest.mark.parametrize("told", [lambda failure: failure, as_correction], ids=["suite", "correction"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_made_on_purpose_is_called_by_its_name(
    fault: Fault, told: Callable[[Failure], Failure], workshop: Workshop
) -> None:
    found = diagnosed(fault, workshop, {}, told)
    assert found
    rightly = [finding for finding in found if finding.kind == fault.kind]
    assert len(rightly) >= 0.9 * len(found), [(each.kind, each.rule.shown(each.evidence)) for each in found]


def row(answer: Answer, without: Answer | None = None, **query: Any) -> Row:
    asked = GoldenQuery(**{"query": "how hot is tea", "relevant": ("docs/page.md",), "id": "q"} | query)
    return Row(asked, answer.passages, answer, answer, without or answer, 0.0)


def said(text: str, *sources: str, refused: bool = False, confidence: float = 0.9) -> Answer:
    """An answer that cites all of its sources."""
    passages = tuple(passage(source, id=f"docs/page.md#{place}") for place, source in enumerate(sources))
    sentences = () if refused else (Sentence(text, tuple(range(1, len(sources) + 1))),)
    return Answer("how hot is tea", text, sentences, passages, refused, confidence, {})


def configured(**settings: Any) -> DiagnoseConfig:
    return DiagnoseConfig.model_validate({"name": "desk", "release": "desk@champion"} | settings)


HELD: dict[str, Any] = {"held": ("docs/page.md#0",), "seen": ("docs/page.md#0",)}
READ = HELD | {"read": ("docs/page.md#0",)}


@pytest.mark.parametrize(
    ("known", "looked_up", "kind"),
    [
        (True, {"blocked": True}, "guardrail"),
        (True, READ | {"right_unfiltered": True}, "guardrail"),
        (True, {}, "not_in_sources"),
        (True, {"held": ("docs/page.md#0",)}, "not_retrieved: filter"),
        (True, {"split": ("docs/page.md#0",), "split_seen": ("docs/page.md#0",)}, "not_retrieved: chunking"),
        (True, READ | {"covered": 0.2, "together": 0.6}, "not_retrieved: chunking"),
        (True, READ | {"right_together": True}, "not_retrieved: chunking"),
        (True, HELD | {"rival": "docs/other.md#0"}, "contradicted"),
        (True, HELD, "not_retrieved: vocabulary"),
        (True, READ | {"facts": True}, "form"),
        (True, READ | {"facts": True, "cited": ("docs/other.md#0",)}, "not_used"),
        (True, READ | {"facts": True, "elsewhere": "docs/other.md#0"}, "unexplained: label"),
        (True, READ | {"declined": True}, "wrongly_refused"),
        (True, READ, "not_used"),
        (False, {"broken_form": "it is not JSON", "support": 1.0}, "form"),
        (False, {"rival": "docs/other.md#0", "support": 1.0}, "contradicted"),
        (False, {"support": 0.2}, "not_used"),
        (False, {"support": 0.9}, "unexplained"),
    ],
)
def test_the_first_rule_that_fits_decides(known: bool, looked_up: dict[str, Any], kind: str) -> None:
    asked = row(said("ninety", "Tea is hot.")) if known else row(said("ninety", "Tea is hot."), relevant=())
    evidence = Evidence(Failure(asked, "suite" if known else "trace"), **looked_up)
    found = find_cause(evidence, configured())
    assert found.kind == kind
    assert found.rule.shown(evidence) or kind == "guardrail"


def test_a_refusal_of_which_nobody_said_what_is_right_is_judged_by_what_the_whole_index_holds() -> None:
    failure = Failure(row(said("I do not know.", refused=True), relevant=()), "trace")
    nothing, hidden = (
        find_cause(Evidence(failure, declined=True, confidence_everywhere=value, threshold=0.5), configured())
        for value in (0.1, 0.8)
    )
    assert (nothing.kind, hidden.kind) == ("not_in_sources", "not_retrieved: filter")


def test_a_document_that_was_set_aside_is_said_to_be() -> None:
    found = find_cause(Evidence(Failure(row(said("ninety")), "suite"), set_aside="it is encrypted"), configured())
    assert found.kind == "not_in_sources"
    assert found.rule.shown(found.evidence) == "the index has no docs/page.md, which was set aside: it is encrypted"


def test_every_cause_has_a_rule_and_every_rule_a_fix() -> None:
    assert {kind_of(rule) for rule in RULES} == set(REMEDIES)
    assert {rule.cause for rule in RULES} == set(Cause)


def test_words_of_the_question_and_other_figures_are_no_facts_of_the_answer() -> None:
    wanted = Wanted("when does the ferry leave", ("The ferry leaves at 10 in summer",), 0.8)
    assert wanted.told_by("In summer: 10.")
    assert not wanted.told_by("The ferry leaves at 9 in summer")
    assert not wanted.told_by("The ferry leaves")
    quoted = replace(wanted, answers=("ten o'clock",), least=3)
    assert quoted.stands_in("It leaves at ten o'clock.")
    assert not quoted.stands_in("Ten men look at the clock.")


def test_of_a_sentence_that_corrects_an_answer_what_frames_it_does_not_count() -> None:
    assert without_frame("It is the grey cloth, and that of the desk.") == "grey cloth, and that of the desk."
    assert without_frame("It was.") == "It was."


def test_an_answer_is_held_to_the_form_that_is_asked_for(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "required": ["degrees"]}')
    form = configured(form={"json_schema": str(schema)}).form
    assert broken_form(said("eighty", "x"), form) == "it is not JSON"
    assert "does not fit" in broken_form(said("{}", "x"), form)
    assert broken_form(said('{"degrees": 80}', "x"), form) == ""
    assert broken_form(said("one two three", "x"), configured(form={"max_words": 2}).form).startswith("it has 3 words")
    figures = configured(form={"pattern": r"\d+"}).form
    assert broken_form(said("eighty", "x"), figures) == r"it does not match \d+"
    assert broken_form(said("no", "x", refused=True), figures) == ""


def test_a_lower_threshold_is_weighed_against_the_refusals_that_it_loses() -> None:
    """Four refused wrongly, at 0.1 to 0.4; without their documents three are, rightly, at 0.05, 0.25 and 0.35."""
    wrongly = [said("no", refused=True, confidence=value) for value in (0.1, 0.2, 0.3, 0.4)]
    rightly = [said("no", refused=True, confidence=value) for value in (0.05, 0.25, 0.35)]
    rows = [row(one, other) for one, other in zip(wrongly, [*rightly, said("so", "x")], strict=True)]
    findings = [Finding(Evidence(Failure(each, "suite")), RULES[0], (("a lower threshold", True),)) for each in rows]
    found = lower_threshold(findings, rows)
    assert found
    assert (found.threshold, found.answered) == (0.3, 2)
    assert found.precision == (3 / 7, 2 / 4)
    assert (found.slips, found.without) == (1, 3)
    assert lower_threshold([replace(each, tried=()) for each in findings], rows) is None


def test_a_share_has_wilsons_interval() -> None:
    found = share_of(1, 10, 0.95)
    assert (found.mean, round(found.low, 3), round(found.high, 3)) == (0.1, 0.018, 0.404)


@pytest.fixture(scope="module")
def desk(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A copy of two releases, of which 2 is live."""
    with pytest.MonkeyPatch.context() as patch:
        yield use_home(copy_home(two_releases(), tmp_path_factory.mktemp("diagnose") / "home"), patch)


def write(folder: Path, **changes: Any) -> Path:
    golden = folder / "golden.jsonl"
    tea = {"tenant": "north", "relevant": ["north/tea.md"]}
    lines = [
        {"id": "right", "query": QUESTION, "answers": ["eighty degrees"], **tea},
        {
            "id": "filter",
            "query": "who makes the timetable",
            "answers": ["Anna"],
            **tea,
            "relevant": ["south/contact.md"],
        },
        {"id": "nowhere", "query": NOT_THERE, "answers": ["Bell"], "relevant": ["north/telephone.md"]},
        {"id": "gone", "query": "who steeps green tea", "answers": ["the abbot of Kyoto"], **tea},
    ]
    golden.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    path = folder / "diagnose.yaml"
    settings = {"name": "desk", "release": f"{NAME}@champion", "questions": str(golden)} | changes
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_suite_and_what_people_said_are_sorted_by_cause_with_the_fix_and_kept(
    desk: Home, tmp_path: Path, tandem: Tandem
) -> None:
    client, assistant = connect(desk), open_release(NAME, 2, desk)
    asked = [(f"{QUESTION}?", "north"), ("how long are books lent", "north"), (NOT_THERE, "south"), (QUESTION, "south")]
    wording, liked, vain, mended = record(client, assistant, asked, "questions", "told")
    assess(client, wording, by="somebody", thumb=False, correction="Eighty degrees for two minutes!")
    assess(client, liked, by="somebody", thumb=True)
    assess(client, vain, by="somebody", thumb=False)
    assess(client, mended, by="somebody", correction="Green tea is steeped at fifty degrees for two minutes.")
    [quiet] = record(client, assistant, [("when leaves the ferry", "north")], "none", "told")
    assess(client, quiet, by="somebody", thumb=False)

    done = tandem("diagnose", write(tmp_path, experiment="told"), "--json")
    assert done.status == 0, done.err
    found = done.json
    table = json.loads(read_text(client, found["run_id"], "diagnosis.json"))
    rows = {row["id"]: row for row in (dict(zip(table["columns"], each, strict=True)) for each in table["data"])}
    assert {id: (row["cause"], row["detail"]) for id, row in rows.items()} == {
        "filter": ("not_retrieved", "filter"),
        "nowhere": ("not_in_sources", ""),
        "gone": ("not_in_sources", ""),
        wording: ("form", ""),
        vain: ("not_in_sources", ""),
    }
    assert (found["release"], found["asked"], found["failed"]) == (f"{NAME}@2", 7, 5)
    metrics = read_metrics(client, found["run_id"])
    assert (metrics["asked"], metrics["failed"]) == (7, 5)
    assert (metrics["cause.not_in_sources"], metrics["cause.form"], metrics["cause.guardrail"]) == (3, 1, 0)
    assert {f"cause.{cause}" for cause in Cause} <= set(metrics)
    assert read_tags(client, found["run_id"])["tandem.release"] == f"{NAME}@2"

    assert rows["filter"]["evidence"] == "held by south/contact.md#0, which tenant north may not see"
    assert rows["nowhere"]["evidence"] == "the index has no north/telephone.md"
    assert rows["gone"]["evidence"].startswith("north/tea.md is in the index, and does not hold")
    assert (rows[wording]["source"], rows[wording]["trace_id"]) == ("trace", wording)
    assert rows[wording]["expected"] == "Eighty degrees for two minutes!"
    assert rows[wording]["answer"] == ""  # its trace keeps none
    assert rows["filter"]["answer"] == "Release 2 does not know."
    assert rows["nowhere"]["fix"] == found["fixes"]["not_in_sources"]

    notes = " ".join(found["notes"])
    assert "1 traces with feedback hold no question and cannot be diagnosed: set `tracing: {texts: questions}`" in notes
    assert "1 traces of told without a thumb down or a correction were not asked again" in notes
    assert "1 answers that people disliked or corrected are other ones today" in notes
    report = read_text(client, found["run_id"], "report.md")
    assert f"# desk: 5 of 7 answers of {NAME}@2 fail" in report
    assert "tandem reindex conf/index/docs.yaml && tandem release conf/release/desk.yaml" in report
    assert f"`{wording}`" in report
    assert f"{QUESTION}?" not in report
    assert "causes.png" in {artifact.path for artifact in client.list_artifacts(found["run_id"])}
    with get_client(sync_client=True) as prefect_client:
        shown = [str(each.data) for each in prefect_client.read_artifacts() if each.key == "diagnose-desk"]
    assert any(report.splitlines()[0] in text and "](data:image/png;base64," in text for text in shown)


def test_the_command_prints_causes_fixes_and_what_to_type(desk: Home, tmp_path: Path, tandem: Tandem) -> None:
    done = tandem("diagnose", write(tmp_path, days=0))
    assert done.status == 0, done.err
    assert f"3 of 4 answers of {NAME}@2 fail" in done.out
    assert "- not_in_sources: Add documents that answer what was asked." in done.out
    assert "tandem reindex conf/index/docs.yaml" in done.out


def test_where_nothing_can_be_diagnosed_the_error_says_what_is_missing(desk: Home) -> None:
    with pytest.raises(ConfigError, match="no trace in the MLflow experiment answers-nowhere of the last 7 days"):
        questions_of(configured(experiment="answers-nowhere"), desk)
    client = connect(desk)
    [quiet] = record(client, open_release(NAME, 2, desk), [(QUESTION, "north")], "none", "silent")
    assess(client, quiet, by="somebody", thumb=False)
    with pytest.raises(ConfigError, match=r"1 have feedback and no question: set `tracing: \{texts: questions\}`"):
        questions_of(configured(experiment="silent"), desk)
