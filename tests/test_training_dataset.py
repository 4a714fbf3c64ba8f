"""A data set from its sources to the files that a training reads, and the report on it."""

import json
import random
from datetime import date
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

from tasks.config.loading import load_config
from tasks.config.training import CheckConfig, DatasetConfig, DpoCheckConfig
from tasks.records import PreparedData
from tasks.training.dataset import describe_findings, prepare_data
from tests.realdata import needs_real_data
from tests.test_training_checks import count_words

ROWS: list[dict[str, Any]] = [
    {
        "q": f"question {n} of customer {n % 7}",
        "a": f"answer {n}",
        "who": f"c{n % 7}",
        "day": f"2026-01-{n % 28 + 1:02}",
    }
    for n in range(56)
]
MAPPED = {"prompt": "q", "completion": "a"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def prepare(dataset: dict[str, Any] | DatasetConfig, folder: str = "out", **options: Any) -> PreparedData:
    if isinstance(dataset, dict):
        dataset = DatasetConfig.model_validate({"format": "prompt_completion", "columns": MAPPED, **dataset})
    return prepare_data(
        dataset,
        options.pop("checks", CheckConfig(min_rows=1)),
        **{
            "held_out_share": 0.25,
            "seed": 0,
            "max_length": 100,
            "count_tokens": count_words,
            "find_unwritable": lambda turns: "",
            **options,
        },
        folder=Path(folder),
    )


def test_the_files_hold_the_rows_in_one_form() -> None:
    source = write("a.jsonl", ROWS)
    prepared = prepare({"sources": [source], "group_column": "q", "label_column": "who", "date_column": "day"})
    rows = pq.read_table(prepared.train).to_pylist() + pq.read_table(prepared.held_out).to_pylist()
    assert len(rows) == prepared.counts["train"] + prepared.counts["held_out"]
    first = next(row for row in rows if row["place"] == "a.jsonl:1")
    assert first == {
        "id": "a.jsonl:1",
        "place": "a.jsonl:1",
        "group": "question 0 of customer 0",
        "label": "c0",
        "date": date(2026, 1, 1),
        "messages": [
            {"role": "user", "content": "question 0 of customer 0"},
            {"role": "assistant", "content": "answer 0"},
        ],
    }
    assert prepared.sources == ("a.jsonl",)


def test_pairs_have_columns_of_their_own() -> None:
    source = write("a.jsonl", [{"prompt": f"q{n}", "chosen": "yes", "rejected": "no"} for n in range(8)])
    prepared = prepare({"sources": [source], "format": "preference", "columns": {}})
    assert pq.read_table(prepared.train).schema.names[-3:] == ["prompt", "chosen", "rejected"]
    assert prepared.counts["train_tokens"] == prepared.counts["train"] * 2 * 2  # both conversations of two words


def test_files_and_version_do_not_hang_on_the_order_of_the_rows() -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    one = prepare({"sources": [write("a.jsonl", ROWS)]}, "one")
    other = prepare({"sources": [write("b.jsonl", shuffled[:20]), write("c.jsonl", shuffled[20:])]}, "other")
    assert one.version == other.version
    for name in ("train", "held_out"):
        tables = [pq.read_table(getattr(prepared, name), columns=["messages"]) for prepared in (one, other)]
        assert tables[0].equals(tables[1])


def test_another_row_another_text_or_another_side_is_another_version() -> None:
    source = write("a.jsonl", ROWS)
    changed = [ROWS[0] | {"a": "answer zero"}, *ROWS[1:]]
    versions = [
        prepare({"sources": [source]}).version,
        prepare({"sources": [source]}, seed=1).version,
        prepare({"sources": [write("b.jsonl", ROWS[1:])]}).version,
        prepare({"sources": [write("c.jsonl", changed)]}).version,
    ]
    assert len(set(versions)) == 4


def test_passwords_of_sources_are_told_nowhere() -> None:
    source = "memory://secret@bucket/a.jsonl"
    with fsspec.open(source, "w") as file:
        file.write("no json\n")
    prepared = prepare({"sources": [source]})
    assert prepared.sources == ("memory://bucket/a.jsonl",)
    assert "secret" not in describe_findings(prepared)


def test_held_out_sources_take_precedence_over_a_split() -> None:
    dataset = {
        "sources": [write("a.jsonl", ROWS[:40])],
        "held_out": [write("b.jsonl", ROWS[40:])],
        "date_column": "day",
        "cut_off": "2026-01-28",
    }
    prepared = prepare(dataset)
    assert {row["place"].partition(":")[0] for row in pq.read_table(prepared.held_out).to_pylist()} == {"b.jsonl"}
    assert (prepared.counts["train"], prepared.counts["held_out"]) == (39, 16)  # row 28 is of the cut-off's day
    assert prepared.sources == ("a.jsonl", "b.jsonl")


def test_a_group_of_rows_to_score_on_is_never_trained_on_even_when_the_split_is_by_date() -> None:
    rows = [ROWS[0] | {"who": "late", "day": "2026-02-01"}, ROWS[1] | {"who": "late"}, *ROWS[2:]]
    dataset = {"sources": [write("a.jsonl", rows)], "group_column": "who", "date_column": "day"}
    prepared = prepare(dataset | {"cut_off": "2026-02-01"})
    assert prepared.counts["held_out"] == 1
    assert prepared.counts["train"] == 54
    dropped = [finding for finding in prepared.findings if "group" in finding.sentence]
    assert [finding.places for finding in dropped] == [("a.jsonl:2",)]


def test_what_is_wrong_with_rows_is_told_and_never_raised() -> None:
    source = write("a.jsonl", [*ROWS, {"q": "no answer"}, ROWS[3], {"q": "mail me", "a": "ada@lovelace.org"}])
    with Path(source).open("a") as file:
        file.write("no json\n")
    prepared = prepare({"sources": [source]}, checks=CheckConfig(min_rows=100, max_cut=0), max_length=6)
    severities = {finding.sentence: (finding.severity, finding.places[:1]) for finding in prepared.findings}
    assert severities["1 row left out: it has no column `a` (but q)."] == ("dropped", ("a.jsonl:57",))
    assert severities["1 row left out: it is not JSON."] == ("dropped", ("a.jsonl:60:1",))
    assert severities["1 row left out that stand elsewhere word for word."] == ("dropped", ("a.jsonl:58",))
    assert severities["1 row with secrets or personal data (e-mail address)."] == ("stop", ("a.jsonl:59",))
    stops = [sentence for sentence, (severity, _) in severities.items() if severity == "stop"]
    assert any("malformed" in sentence for sentence in stops)
    assert any("longer than 6 tokens" in sentence for sentence in stops)
    assert any("at least 100 must be" in sentence for sentence in stops)
    assert prepared.stopped


def test_data_without_a_usable_row_is_stopped_and_not_raised() -> None:
    prepared = prepare({"sources": [write("a.jsonl", [{"x": 1}])]})
    assert prepared.stopped
    assert pq.read_table(prepared.train).num_rows == 0
    assert "may not be trained on" in describe_findings(prepared)


def test_the_report_lists_the_worst_first_with_the_first_places() -> None:
    rows = [*ROWS, *({"q": f"a | b {n}", "a": ""} for n in range(8))]
    report = describe_findings(prepare({"sources": [write("a.jsonl", rows)]})).splitlines()
    assert report[0].startswith("**The data may not be trained on.** 64 rows read from `a.jsonl`: 42 to train on (")
    assert [line.split(" | ")[0] for line in report[4:]] == ["| stop", "| dropped", "| note"]
    assert report[5] == (
        "| dropped | 8 rows left out: each has nothing under `a`. "
        "| a.jsonl:57, a.jsonl:58, a.jsonl:59, a.jsonl:60, a.jsonl:61 and 3 more |"
    )


def test_a_report_of_clean_data_says_so() -> None:
    dataset = {"sources": [write("a.jsonl", ROWS[:40])], "held_out": [write("b.jsonl", ROWS[40:])]}
    assert describe_findings(prepare(dataset)).endswith("Nothing was found.")


CONF = Path(__file__).resolve().parents[1] / "conf" / "datasets"


@pytest.mark.realdata
@needs_real_data
def test_banking77_is_prepared_as_json_intents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(CONF.parents[1])
    prepared = prepare(load_config(CONF / "banking77.yaml", DatasetConfig), str(tmp_path), checks=CheckConfig())
    assert not prepared.stopped
    assert prepared.counts["read"] == 10_003 + 3_080
    assert prepared.counts["malformed"] == 0
    assert prepared.counts["held_out"] == 3_080
    assert 9_960 <= prepared.counts["train"] <= 9_990
    rows = pq.read_table(prepared.train).to_pylist()
    assert len({json.loads(row["messages"][1]["content"])["intent"] for row in rows}) == 77
    assert any("\n" in row["messages"][0]["content"] for row in rows)
    assert not any("secrets" in finding.sentence for finding in prepared.findings)


@pytest.mark.realdata
@needs_real_data
def test_preferences_are_prepared_as_pairs_and_five_share_no_prompt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(CONF.parents[1])
    dataset = load_config(CONF / "preferences.yaml", DatasetConfig)
    prepared = prepare(dataset, str(tmp_path), checks=DpoCheckConfig(max_broken=0.01, private="drop"), max_length=1000)
    assert not prepared.stopped
    assert (prepared.counts["read"], prepared.counts["malformed"]) == (2_312, 13)
    without = next(finding for finding in prepared.findings if "no prompt" in finding.sentence)
    assert [place.rpartition(":")[2] for place in without.places] == ["1255", "1689", "1951", "1953", "2037"]
    pairs = pq.read_table(prepared.held_out).to_pylist()
    assert len(pairs) > 200
    assert all(pair["prompt"][-1]["role"] == "user" and pair["chosen"] != pair["rejected"] for pair in pairs)
    assert prepare(dataset, str(tmp_path)).stopped  # for its malformed rows and personal data, unless told otherwise
