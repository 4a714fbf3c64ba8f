"""The demo's support messages: well-formed, told apart by day and wording, and made by the generator beside them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tasks.training.samples import Writer, write_samples

FOLDER = Path(__file__).resolve().parents[1] / "data" / "samples" / "support"
GENERAL = FOLDER.parent / "general"
NAMES = ("train", "held_out", "pairs", "pairs_held_out")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def phrases() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "phrases.yaml").read_text(encoding="utf-8"))


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "phrases.yaml", tmp_path)
    write_samples(tmp_path)
    for name in NAMES:
        assert (tmp_path / f"{name}.jsonl").read_text() == (FOLDER / f"{name}.jsonl").read_text()


@pytest.mark.parametrize(
    ("name", "least"), [("train", 700), ("held_out", 150), ("pairs", 300), ("pairs_held_out", 100)]
)
def test_every_answer_fits_the_schema(name: str, least: int) -> None:
    schema = Draft202012Validator(json.loads((FOLDER / "schema.json").read_text()))
    found = rows(name)
    assert len(found) >= least
    for row in found:
        for key in {"answer", "chosen", "rejected"} & set(row):
            schema.validate(json.loads(row[key]))


def test_what_an_answer_names_stands_in_the_message() -> None:
    for row in rows("train") + rows("held_out"):
        answer = json.loads(row["answer"])
        assert answer["intent"] == row["intent"]
        for key in ("order", "product"):
            assert answer[key] is None or answer[key] in row["message"]


def test_rows_to_score_on_are_newer_and_share_no_message_or_customer() -> None:
    for train, held_out in (("train", "held_out"), ("pairs", "pairs_held_out")):
        old, new = rows(train), rows(held_out)
        assert max(row["date"] for row in old) < "2026-07-01" <= min(row["date"] for row in new)
        key = "message" if "message" in old[0] else "prompt"
        for shared in (key, "customer"):
            assert not {row[shared] for row in old} & {row[shared] for row in new}


def test_no_phrase_is_on_both_sides(phrases: dict[str, Any]) -> None:
    def flat(part: Any) -> set[str]:
        if isinstance(part, dict):
            return set().union(*map(flat, part.values()))
        return {part} if isinstance(part, str) else set().union(*map(flat, part))

    assert not flat(phrases["train"]) & flat(phrases["held_out"])


def test_a_rejected_answer_sees_too_much_or_too_little_in_a_message() -> None:
    for row in rows("pairs") + rows("pairs_held_out"):
        chosen, rejected = json.loads(row["chosen"]), json.loads(row["rejected"])
        differing = {key for key in chosen if chosen[key] != rejected[key]}
        assert differing
        assert differing <= {"order", "urgency"}
        if "order" in differing:
            assert (chosen["order"] or rejected["order"]) in row["prompt"]
            assert None in (chosen["order"], rejected["order"])
        if "urgency" in differing:
            assert (chosen["urgency"], rejected["urgency"]) in {
                ("normal", "high"),
                ("high", "normal"),
                ("low", "normal"),
            }


def test_labels_to_train_on_disagree_on_two_questions_and_those_to_score_on_do_not(phrases: dict[str, Any]) -> None:
    def urgencies(side: str, name: str) -> set[str]:
        angry = phrases[side]["angry"]
        hits = [row for row in rows(name) if any(phrase in row["message"] for phrase in angry)]
        return {json.loads(row["answer"])["urgency"] for row in hits}

    assert urgencies("train", "train") == {"normal", "high"}
    assert urgencies("held_out", "held_out") == {"normal"}


def test_a_writer_draws_no_message_twice(phrases: dict[str, Any]) -> None:
    messages = Writer(phrases["held_out"], 1).distinct(300)
    assert len({message.text for message in messages}) == 300


def test_the_general_samples_have_an_answer_among_their_choices() -> None:
    choices = [json.loads(line) for line in (GENERAL / "choices.jsonl").read_text().splitlines()]
    texts = [json.loads(line)["text"] for line in (GENERAL / "text.jsonl").read_text().splitlines()]
    assert len(texts) >= 60
    assert len(choices) >= 60
    assert all(item["answer"] in item["choices"] and len(set(item["choices"])) > 1 for item in choices)
    assert not [text for text in texts if "urgency" in text]
