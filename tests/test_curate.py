"""Learning from use: from thumbs and corrections on real traces to approved rows, data sets and a fine-tune."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
import yaml

from tasks.config.curation import CurateConfig, DistillConfig
from tasks.config.settings import Home
from tasks.config.training import DatasetConfig
from tasks.distill import distill, journal_of
from tasks.draft import cite, make_draft
from tasks.errors import ConfigError, RegistryError
from tasks.evaluation.golden import load_golden
from tasks.journal import Journal
from tasks.paying import Call
from tasks.records import Decision, Draft
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.datasets import find_dataset
from tasks.registry.runs import finish, log, log_table, read_text, start_run
from tasks.registry.traces import assess
from tasks.releases import open_release
from tasks.review import Desk
from tasks.sift import InUse, Sifted, sift
from tests.command import Tandem
from tests.endpoint import serve
from tests.homes import copy_home, use_home
from tests.passages import passage
from tests.released import NAME, QUESTION, record, two_releases

ROOT = Path(__file__).resolve().parents[1]
LORRY = "how heavy may a lorry on the old bridge be"
FERRY = "when leaves the ferry to the island"
BOOKS = "for how long are books lent here"
CORRECTION = "Steep green tea at eighty degrees, for two minutes."


@pytest.fixture(scope="module")
def asked(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with the releases of `desk`, and traces of its answers, with feedback and texts."""
    home = copy_home(two_releases(), tmp_path_factory.mktemp("curate") / "home")
    with pytest.MonkeyPatch.context() as patch:
        use_home(home, patch)
        client, assistant = connect(home), open_release(NAME, 2, home)
        questions = [(each, "north") for each in (QUESTION, LORRY, FERRY, BOOKS)]
        corrected, liked, _, private = record(client, assistant, questions, "answers")
        assess(client, corrected, by="ann", correction=CORRECTION)
        assess(client, liked, by="ann", thumb=True)
        assess(client, private, by="bob", thumb=True, correction="Ask ben.hale@harbour.org, who lends books.")
    return home


@pytest.fixture
def desk(asked: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return use_home(copy_home(asked, tmp_path / "home"), monkeypatch)


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "desk.yaml"
    path.write_text(yaml.safe_dump({"name": "desk", "release": "desk", "held_out_share": 0} | changes))
    return path


def review(home: Home) -> Path:
    return Desk("desk", home).file


def entries(home: Home) -> list[dict[str, Any]]:
    return yaml.safe_load(review(home).read_text()) or []


def decide(home: Home, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """As a person does in an editor."""
    review(home).write_text(yaml.safe_dump([entry | change(entry) for entry in entries(home)]))


def rows_of(client: MlflowClient, name: str, which: str = "newest", side: str = "train") -> list[dict[str, Any]]:
    text = read_text(client, find_dataset(client, name, which).run_id, f"{side}.jsonl")
    return [json.loads(line) for line in text.splitlines()]


def traces_of(client: MlflowClient, run_id: str) -> list[Any]:
    """Those that are linked to the run."""
    names = ("answers-desk", "dataset-desk-sft")
    places = [experiment.experiment_id for name in names if (experiment := client.get_experiment_by_name(name))]
    return list(client.search_traces(locations=places, run_id=run_id))


def test_what_people_said_waits_for_a_person_and_then_becomes_data_sets_with_their_traces(
    desk: Home, tmp_path: Path, tandem: Tandem
) -> None:
    said = tandem("curate", write(tmp_path), "--json")
    assert (said.status, said.json["decision"]) == (0, "waits"), said.err
    assert said.json["drafted"] == {"correction": {"sft": 1, "dpo": 1}, "thumbs": {"golden": 1}}
    assert said.json["versions"] == {}
    client = connect(desk)
    with pytest.raises(RegistryError, match="desk-sft has no version newest: `tandem curate` made none yet"):
        find_dataset(client, "desk-sft", "newest")

    kinds = {entry["kind"]: entry for entry in entries(desk)}
    assert kinds["sft"]["answer"] == f"{CORRECTION} [1]"  # which people leave out, and the passage says
    assert kinds["dpo"]["rejected"] == "Green tea is steeped at eighty degrees for two minutes. [1]"
    assert (kinds["golden"]["question"], kinds["golden"]["relevant"][0]) == (LORRY, "north/bridge.md")
    decide(desk, lambda entry: {"approved": entry["kind"] != "dpo", "answer": "At eighty degrees [1]."})
    said = tandem("curate", write(tmp_path), "--json")
    assert said.json["decision"] == "new versions"
    assert said.json["rows"]["dpo"] == {"waiting": 0, "approved": 0, "rejected": 1}
    assert said.json["versions"] == {"sft": "desk-sft@1", "golden": "desk-golden@1"}
    assert entries(desk) == []

    [row] = rows_of(client, "desk-sft")
    system, user, answer = row["messages"]
    assert (user["content"], answer["content"]) == (QUESTION, "At eighty degrees [1].")
    assert system["content"].startswith("Prompt 2: [1] About the tea\n")  # what release 2 read
    assert "Green tea is steeped at eighty degrees" in system["content"]
    version = find_dataset(client, "desk-sft", "1")
    run = client.get_run(version.run_id)
    assert run.inputs.dataset_inputs[0].dataset.name == "desk-sft"
    assert row["traces"] == [trace.info.trace_id for trace in traces_of(client, version.run_id)]
    assert run.data.tags["tandem.parent"] == ""
    [golden] = load_golden(Desk("desk", desk).folder / "golden.jsonl")
    assert (golden.query, golden.tenant, golden.relevant[0]) == (LORRY, "north", "north/bridge.md")

    again = tandem("curate", write(tmp_path), "--json")
    assert (again.json["decision"], again.json["versions"]) == ("nothing new", said.json["versions"])
    assert again.json["left_out"]["the same, or its question, was drafted before"] == 3
    report = read_text(client, again.json["run_id"], "report.md")
    assert "# desk: nothing new" in report
    assert QUESTION not in report


def test_private_data_are_not_taught_and_the_report_says_what_was_left_out(
    desk: Home, tmp_path: Path, tandem: Tandem
) -> None:
    said = tandem("curate", write(tmp_path))
    assert re.search(r"an answer holds private data \(e-mail address\).*│ 2", said.out)
    decide(desk, lambda entry: {"approved": True, "answer": "Ask anna.larsen@harbour.org [1]."})
    said = tandem("curate", write(tmp_path))
    assert re.search(r"approved, and its edited answer holds private data \(e-mail address\).*│ 2", said.out)
    assert "harbour.org" not in json.dumps(rows_of(connect(desk), "desk-golden", side="held_out"))
    with pytest.raises(RegistryError):
        find_dataset(connect(desk), "desk-sft", "newest")


def test_a_row_that_is_approved_comes_back_as_the_next_version_and_an_old_one_stays(
    desk: Home, tmp_path: Path, tandem: Tandem
) -> None:
    tandem("curate", write(tmp_path))
    whole = review(desk).read_text()
    decide(desk, lambda entry: {"approved": entry["kind"] == "sft"})
    tandem("curate", write(tmp_path))
    review(desk).write_text(whole.replace("approved:\n", "approved: false\n"))  # an old file, and a change of mind
    tandem("curate", write(tmp_path))
    client = connect(desk)
    assert [len(rows_of(client, "desk-sft", which)) for which in ("1", "2")] == [1, 0]
    assert client.get_run(find_dataset(client, "desk-sft", "2").run_id).data.tags["tandem.parent"] == "desk-sft@1"
    with pytest.raises(RegistryError, match="no version 3: it has 1, 2"):
        find_dataset(client, "desk-sft", "3")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda text: text.replace("  kind: sft", " kind: [sft"), "expected"),
        (lambda text: text.replace("approved:\n", "approved: maybe\n", 1), "is 'maybe', and must be true or false"),
        (lambda text: re.sub(r"id: \w+", "id: unknown", text, count=1), "there is no row unknown"),
        (lambda text: "rows", "it is not a list of rows"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_stays_and_nothing_is_lost(
    home: Home, spoil: Callable[[str], str], what: str
) -> None:
    waiting = Desk("desk", home)
    waiting.add([example(QUESTION), example(LORRY)])
    waiting.write_file("ann")
    waiting.decide([(waiting.drafts()[0].id, True, "yes")], "ann")
    spoilt = spoil(waiting.file.read_text())
    waiting.file.write_text(spoilt)
    for use in (waiting.read_file, waiting.write_file):
        with pytest.raises(ConfigError, match=rf"review.yaml cannot be read: .*{what}.* Mend it, or move it away"):
            use("bob")
    assert waiting.file.read_text() == spoilt
    assert [(one.by, one.approved) for one in waiting.decisions().values()] == [("ann", True)]


def test_a_file_that_was_cut_off_approves_no_row_whose_answer_is_cut_off(home: Home) -> None:
    rows = [
        make_draft("sft", "correction", question=QUESTION, answer="One line.\nAnother line."),
        make_draft("sft", "correction", question=LORRY, answer="Two lines.\nAnother line."),
    ]
    waiting = Desk("desk", home)
    waiting.add(rows)
    waiting.write_file("ann")
    whole = waiting.file.read_text().replace("approved:\n", "approved: true\n")
    waiting.file.write_text(whole[: whole.rindex("Another")])
    assert waiting.read_file("ann") == 1
    assert [answer for _, answer in waiting.approved()] == ["One line.\nAnother line."]
    waiting.write_file("ann")
    assert [entry["question"] for entry in yaml.safe_load(waiting.file.read_text())] == [LORRY]


def test_what_an_example_and_its_pair_read_is_shown_once(home: Home) -> None:
    waiting = Desk("desk", home)
    read = ({"role": "system", "content": "Passage one.\nPassage two."}, {"role": "user", "content": QUESTION})
    rows = [
        make_draft(kind, "correction", question=QUESTION, prompt=read, answer="Hot.", rejected=rejected)
        for kind, rejected in (("sft", ""), ("dpo", "Cold."))
    ]
    waiting.add([*rows, make_draft("golden", "correction", question=LORRY, relevant=("north/lorry.md",))])
    waiting.write_file("ann")
    shown = [entry.get("read") for entry in yaml.safe_load(waiting.file.read_text())]
    assert shown == ["Passage one.\nPassage two.", f"the same as row {rows[0].id}", None]


def test_an_edit_that_is_not_decided_on_is_still_there_after_the_next_run(home: Home) -> None:
    waiting = Desk("desk", home)
    waiting.add([make_draft("sft", "correction", question=QUESTION, answer="Hot.")])
    waiting.write_file("ann")
    waiting.file.write_text(waiting.file.read_text().replace("answer: Hot.", "answer: Quite hot."))
    waiting.add([make_draft("sft", "correction", question=LORRY, answer="Heavy.")])
    waiting.write_file("ann")
    assert [entry["answer"] for entry in yaml.safe_load(waiting.file.read_text())] == ["Quite hot.", "Heavy."]


def test_a_line_that_a_killed_process_left_half_written_is_none(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "decisions.jsonl", Decision)
    one, two = (Decision(name, True, "yes", "ann", 0.0) for name in ("one", "two"))
    journal.add([one])
    with journal.path.open("ab") as file:
        file.write(b'{"id": "half", "appro')
    assert journal.read() == [one]
    journal.add([two])
    assert journal.read() == [one, two]
    journal.path.write_text("nonsense\n")
    with pytest.raises(ConfigError, match="line 1, is no record"):
        journal.read()


def test_the_better_of_two_answers_by_thumbs_is_a_pair(desk: Home, tmp_path: Path, tandem: Tandem) -> None:
    client = connect(desk)
    questions = [(LORRY, "south"), (FERRY, "south")]
    [worse, other] = record(client, open_release(NAME, 1, desk), questions, "answers", "answers-two")
    [better, same] = record(client, open_release(NAME, 2, desk), questions, "answers", "answers-two")
    [sixty] = record(client, open_release(NAME, 1, desk), [(QUESTION, "north")], "answers", "answers-two")
    [eighty] = record(client, open_release(NAME, 2, desk), [(QUESTION, "north")], "answers", "answers-two")
    for trace in (worse, other, same, sixty):
        assess(client, trace, by="ann", thumb=False)
    for trace in (better, eighty):
        assess(client, trace, by="ann", thumb=True)
    tandem("curate", write(tmp_path, experiment="answers-two"))
    [pair] = [row for row in Desk("desk", desk).drafts() if row.kind == "dpo"]
    assert pair.question == QUESTION  # the answers to the others are the same, or none is liked
    assert ("eighty" in pair.answer, "sixty" in pair.rejected) == (True, True)
    assert pair.traces == (eighty, sixty)
    assert pair.release == "desk@2"


def test_traces_without_texts_say_which_setting_keeps_them(desk: Home, tmp_path: Path, tandem: Tandem) -> None:
    client, assistant = connect(desk), open_release(NAME, 2, desk)
    for texts in ("none", "questions"):
        [trace] = record(client, assistant, [(QUESTION, "north")], texts, "answers-quiet")
        assess(client, trace, by="ann", correction=CORRECTION)
    said = tandem("curate", write(tmp_path, experiment="answers-quiet"), "--json")
    assert said.json["drafted"] == {"correction": {"sft": 1}}
    assert {why.partition(":")[0] for why in said.json["left_out"]} == {
        "its trace holds no question",
        "its trace holds no answer to reject",
        "a golden query that nearly asks what a row to train on asks",
    }


def test_answers_of_the_wrong_form_become_examples_and_other_failures_do_not(
    desk: Home, tmp_path: Path, tandem: Tandem
) -> None:
    client = connect(desk)
    row = {"id": "1", "source": "trace", "trace_id": "", "question": FERRY, "expected": "At nine on weekdays only."}
    row |= {"answer": "The ferry leaves at nine.", "cause": "form", "tenant": "north", "release": "desk@2"}
    others = [row | {"cause": "not_used", "question": LORRY}, row | {"expected": "", "question": BOOKS}]
    run = start_run(client, "diagnosis-desk", "diagnosis", "desk")
    log_table(client, run, "diagnosis.json", [row, *others])
    log(client, run, metrics={"failed": 1 + len(others)})
    finish(client, run)
    tandem("curate", write(tmp_path, diagnosis="desk", days=0.000001))
    found = Desk("desk", desk).drafts()
    assert [(each.kind, each.source, each.question) for each in found] == [
        ("sft", "diagnosis", FERRY),
        ("dpo", "diagnosis", FERRY),
    ]
    assert found[1].rejected == "The ferry leaves at nine."
    run = start_run(client, "diagnosis-desk", "diagnosis", "desk")
    log(client, run, metrics={"failed": 0})  # a diagnosis in which nothing fails has no table
    finish(client, run)
    again = tandem("curate", write(tmp_path, diagnosis="desk", days=0.000001), "--json")
    assert (again.status, again.json["drafted"]) == (0, {})


def sifted(drafts: Sequence[Draft], before: Sequence[Draft] = (), **changes: Any) -> Sifted:
    in_use = InUse(changes.pop("evaluated", ()), changes.pop("trained", ()))
    own = {"name": "desk", "release": "desk", "held_out_share": 0.5, "near_meaning": 1}
    config = CurateConfig.model_validate(own | changes)
    return sift(drafts, before, in_use, config)


def example(question: str, kind: Any = "sft", **values: Any) -> Draft:
    return make_draft(kind, "correction", question=question, answer="yes", **values)


def test_nothing_near_an_evaluation_or_a_data_set_in_use_is_put_before_a_person() -> None:
    drafts = [example(QUESTION), example(f"please tell me {QUESTION}"), example(LORRY), example(FERRY)]
    found = sifted(drafts, evaluated=(f"say, {QUESTION}",), trained=(LORRY,))
    assert [row.question for row in found.rows] == [FERRY]
    assert found.left_out == {
        "its question is near one of the evaluation": 2,
        "its question is near one of a data set in use": 1,
    }


def test_a_question_in_other_words_is_near_by_what_it_means() -> None:
    asked = "When will my card arrive?"
    drafts = [example("I'm wondering when my card will arrive"), example("Is my card damaged?")]
    assert [row.question for row in sifted(drafts, evaluated=(asked,), near_meaning=0.9).rows] == [drafts[1].question]
    assert len(sifted(drafts, evaluated=(asked,)).rows) == 2


def test_questions_that_are_near_go_to_one_side_also_by_way_of_a_third_and_over_runs() -> None:
    words = list(ascii_lowercase)
    chain = [" ".join(words[place : place + 12]) for place in range(0, 13, 2)]  # each near the next, none the last
    for tenant in map(str, range(8)):  # as many tenants, so that none is the second row of its cluster
        drafts = [example(f"{question} {tenant}", tenant=f"{tenant}{n}") for n, question in enumerate(chain)]
        rows = sifted(drafts).rows
        assert len(rows) == len(chain)
        assert len({row.side for row in rows}) == 1
        later = example(f"{chain[2]} {tenant}", "dpo", tenant="later")
        assert sifted([later], rows).rows[0].side == rows[0].side
    sides = [
        sifted([example(f"what does number {number} {number}{number} mean")]).rows[0].side for number in range(200)
    ]
    assert 70 < sides.count("held_out") < 130


def test_a_golden_query_is_made_of_a_question_that_is_not_trained_on() -> None:
    taught, asked = example(QUESTION), example(QUESTION, "golden", relevant=("north/tea.md",))
    for share, kinds in ((0, ["sft"]), (1, ["sft", "golden"])):
        found = sifted([taught, asked], held_out_share=share).rows
        assert [row.kind for row in found] == kinds
    assert [row.side for row in found] == ["held_out", "held_out"]
    alone = sifted([asked], held_out_share=0)
    assert [row.side for row in alone.rows] == ["held_out"]
    assert sifted([taught], alone.rows, held_out_share=0).rows[0].side == "held_out"


def test_of_one_tenant_or_topic_no_more_rows_are_taken_than_its_cap() -> None:
    drafts = [example(f"question {n} about {n * 7} and {n * 11}", tenant="t", topic=f"d{n % 2}") for n in range(8)]
    found = sifted(drafts, caps={"tenant": 5, "topic": 2})
    assert [row.topic for row in found.rows] == ["d0", "d1", "d0", "d1"]
    assert found.left_out == {"there are 2 rows of its topic already (caps.topic)": 4}
    assert len(sifted(drafts, caps={"tenant": 3}).rows) == 3
    assert len(sifted(drafts[4:], found.rows, caps={"tenant": 5}).rows) == 1


def test_a_correction_cites_what_holds_it_and_is_otherwise_left_as_it_was_written() -> None:
    tea, ferry = passage("Green tea is steeped at eighty degrees."), passage("The ferry leaves at nine.")
    text = "The ferry leaves at nine.\n- Steep green tea at eighty degrees!\nNobody knows why."
    marked = "The ferry leaves at nine. [2]\n- Steep green tea at eighty degrees! [1]\nNobody knows why."
    assert cite(text, [tea, ferry], 0.6) == marked
    assert cite(marked, [tea, ferry], 0.6) == marked
    assert cite('{"degrees": "eighty"}', [tea], 0.1) == '{"degrees": "eighty"}'


ASKS = {"tea": QUESTION, "bridge": LORRY, "ferry": FERRY, "library": BOOKS}


def model(texts: Sequence[str]) -> list[dict[str, Any]]:
    """A model that asks about the page that it is shown, and answers with the first sentence of the right one."""
    pages = re.findall(r"\[(\d)\] About the (\w+)\n# About the \w+\n\n([^\n]*?\.)", texts[-1] + texts[0])
    if texts[0].startswith("Write one question"):
        return [{"content": ASKS.get(pages[0][1], "what?")}]
    said = [f"{sentence} [{number}]" for number, page, sentence in pages if ASKS.get(page) == texts[1]]
    return [{"content": said[0] if said else "Nobody can say that."}]


def distilled(home: Home, base_url: str, **changes: Any) -> tuple[CurateConfig, Any]:
    prices = {"price_in": 1.0, "price_out": 2.0, "max_cost": 1.0, "max_new_tokens": 100}
    settings = {"questions": 20, "base_url": base_url, "model": "big", **prices, **changes}
    config = CurateConfig.model_validate({"name": "desk", "release": "desk", "distill": settings})
    return config, distill.fn(config)


def test_a_stronger_model_asks_and_answers_and_what_is_grounded_is_kept_and_paid_for_once(desk: Home) -> None:
    with serve(model) as served:
        _, found = distilled(desk, str(served.config.base_url))
        rows = [row for row in found.drafted if isinstance(row, Draft)]
        assert len(rows) >= 6  # of four pages for each of two tenants, and one about a person
        tea = next(row for row in rows if row.question == QUESTION and row.tenant == "north")
        assert "eighty degrees for two minutes. [" in tea.answer
        assert tea.prompt[0]["content"].startswith("Prompt 2: [1]")
        calls = len(served.asked)
        assert found.spent == pytest.approx(calls * (7 * 1.0 + 3 * 2.0) / 1e6)
        assert "anna.larsen" not in json.dumps(served.asked)  # goes to no model
        assert found.reasons[0].startswith("Distillation of 9 passages takes 18 calls and about 0.00")
        _, again = distilled(desk, str(served.config.base_url))
        assert (again.drafted, again.spent, len(served.asked)) == (found.drafted, found.spent, calls)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("The tea is hot.", "the model's answer has sentences that cite nothing"),
        ("Tea is hot [1]. It is so.", "the model's answer has sentences that cite nothing"),
        ("Ships sail to far countries every summer [1].", "too few of the words of the model's answer stand in what"),
        ("Write to max.mole@harbour.org [1].", "the model's answer holds what the release may not say"),
    ],
)
def test_answers_that_are_not_grounded_are_left_out(desk: Home, said: str, reason: str) -> None:
    def lies(texts: Sequence[str]) -> list[dict[str, Any]]:
        return model(texts) if texts[0].startswith("Write one question") else [{"content": said}]

    with serve(lies) as served:
        _, found = distilled(desk, str(served.config.base_url))
    assert not any(isinstance(row, Draft) for row in found.drafted)
    assert any(str(row).startswith(reason) for row in found.drafted)


def test_no_call_is_made_that_might_cost_more_than_is_left(desk: Home) -> None:
    with serve(model) as served:
        address = str(served.config.base_url)
        _, found = distilled(desk, address, max_cost=0.0009)
        made = len(served.asked)
        assert 0 < made < 18
        assert "raise distill.max_cost to go on" in found.reasons[1]
        worst = [call.cost for call in journal_of("desk", desk).read() if call.text is None]
        spent = [call.cost for call in journal_of("desk", desk).read() if call.text is not None]
        assert all(sum(spent[:n]) + worst[n] <= 0.0009 for n in range(made))
        assert all(cost <= most for cost, most in zip(spent, worst, strict=True))
        distilled(desk, address, max_cost=0.0009)
        assert len(served.asked) == made
        _, rest = distilled(desk, address)
        assert made < len(served.asked) <= 18
        assert rest.spent == pytest.approx(len(served.asked) * 13 / 1e6)


def test_a_call_that_was_killed_counts_as_if_it_had_been_paid_for(desk: Home) -> None:
    with serve(model) as served:
        address = str(served.config.base_url)
        journal_of("desk", desk).add([Call("killed", "something", 0.9999)])
        _, found = distilled(desk, address)
    assert (served.asked, found.spent) == ([], 0.9999)


def test_a_model_that_does_not_answer_stops_the_distillation_and_not_the_rest(desk: Home) -> None:
    with serve(model, failures=[400]) as served:
        _, found = distilled(desk, str(served.config.base_url))
    assert found.drafted == ()
    assert "Distillation stopped after 0 of 9 passages: the model big at" in found.reasons[1]


def test_what_may_be_spent_has_to_be_said() -> None:
    with pytest.raises(ValueError, match="max_cost is 0: say how much may be spent"):
        DistillConfig(questions=1, base_url="http://localhost/v1", model="big", price_in=1)
    with pytest.raises(ValueError, match="name its base_url and model"):
        DistillConfig(questions=1)
    with pytest.raises(ValueError, match="datasets:/desk: write datasets:/name@3"):
        DatasetConfig(format="messages", sources=("datasets:/desk",))
