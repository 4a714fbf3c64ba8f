"""What is checked before a second of training, and what is kept of what was found."""

import json
import sys
from pathlib import Path

import pytest

from tasks.check_data import check_data
from tasks.config.settings import Home
from tasks.config.training import DpoConfig, SftConfig
from tasks.errors import ConfigError, ModelError
from tasks.registry.connection import connect
from tasks.registry.runs import read_text, start_run
from tests.tiny_models import TEMPLATE, conversation, make_model, write_data, write_lines, write_yaml

ROWS = 64


@pytest.fixture
def folder(ready_home: Home, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Conversations, the same as pairs, and a conf/ that names both."""
    write_data(tmp_path)
    pairs = [
        {"prompt": asked["content"], "chosen": answer["content"], "rejected": "no"}
        for asked, answer in (conversation(number) for number in range(ROWS))
    ]
    write_lines(tmp_path / "pairs.jsonl", pairs)
    conf = tmp_path / "conf"
    write_yaml(conf / "models" / "tiny.yaml", {"model": str(tiny_model)})
    for name, form in (("rows", "messages"), ("pairs", "preference")):
        write_yaml(conf / "datasets" / f"{name}.yaml", {"format": form, "sources": [str(tmp_path / f"{name}.jsonl")]})
    monkeypatch.setenv("TANDEM_CONF", str(conf))
    return tmp_path


def run(
    kind: type[SftConfig] | type[DpoConfig],
    folder: Path,
    home: Home,
    checks: dict[str, object] | None = None,
    **scoring: object,
) -> str:
    """Check the rows, or the pairs; returns the MLflow run."""
    files = {f"general_{what}": str(folder / f"{what}.jsonl") for what in ("text", "choices")}
    config = kind.model_validate(
        {
            "name": "tiny",
            "base": "tiny",
            "dataset": "rows" if kind is SftConfig else "pairs",
            "checks": checks or {"min_rows": 10, "near_duplicate": 1},
            "held_out_share": 0.25,
            "training": {"max_length": 64},
            "scoring": {"scores": [], **files, **scoring},
        }
    )
    run_id = start_run(connect(home), "adapter-tiny", "tiny", "tiny")
    check_data.fn(config, run_id, folder / "data")
    return run_id


def test_the_places_of_all_rows_with_findings_are_kept_beside_the_report(folder: Path, ready_home: Home) -> None:
    with (folder / "rows.jsonl").open("a") as file:
        file.writelines(json.dumps({"messages": conversation(0)}) + "\n" for _ in range(8))
    run_id = run(SftConfig, folder, ready_home)
    report, findings = (read_text(connect(ready_home), run_id, name) for name in ("data.md", "findings.json"))
    assert "and 3 more" in report
    assert "`findings.json`" in report
    [repeated] = [found for found in json.loads(findings) if "word for word" in found["sentence"]]
    assert repeated["severity"] == "dropped"
    assert repeated["places"] == [f"{folder}/rows.jsonl:{ROWS + 1 + n}" for n in range(8)]


def test_what_the_base_models_template_cannot_write_is_counted_and_named(
    folder: Path, ready_home: Home, tmp_path: Path
) -> None:
    template = TEMPLATE.replace(
        "{% for", "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for", 1
    )
    model = make_model(tmp_path / "model", template)
    write_yaml(tmp_path / "conf" / "models" / "tiny.yaml", {"model": str(model)})
    ended = [{"role": "user", "content": "where"}, {"role": "assistant", "content": "it is <|end|> here"}]
    system = [{"role": "system", "content": "be short"}, *conversation(70)]
    with (folder / "rows.jsonl").open("a") as file:
        file.writelines(json.dumps({"messages": turns}) + "\n" for turns in (ended, system))
    run_id = run(SftConfig, folder, ready_home, checks={"min_rows": 10, "near_duplicate": 1, "max_broken": 0.1})
    findings = json.loads(read_text(connect(ready_home), run_id, "findings.json"))
    [left_out] = [found for found in findings if "chat template" in found["sentence"] and found["places"]]
    assert (left_out["severity"], left_out["places"]) == ("dropped", [f"{folder}/rows.jsonl:{ROWS + 1}"])
    assert "in an answer stands <|end|>" in left_out["sentence"]
    assert "writes no system turn" in read_text(connect(ready_home), run_id, "data.md")


def test_a_template_that_no_answer_could_follow_stops_the_run_before_it_trains(
    folder: Path, ready_home: Home, tmp_path: Path
) -> None:
    thinks = TEMPLATE.replace("<|start|>assistant\n{% endif %}", "<|start|>assistant\n<think>\n{% endif %}")
    write_yaml(tmp_path / "conf" / "models" / "tiny.yaml", {"model": str(make_model(tmp_path / "model", thinks))})
    with pytest.raises(ModelError, match=r"cannot be trained on: a prompt is .* take another base model"):
        run(SftConfig, folder, ready_home)


METHODS = pytest.mark.parametrize("kind", [SftConfig, DpoConfig])


@METHODS
def test_answers_that_cannot_be_scored_are_named_before_training(
    kind: type[SftConfig] | type[DpoConfig], folder: Path, ready_home: Home
) -> None:
    with pytest.raises(ConfigError, match=r"reference answers cannot be scored by valid_json"):
        run(kind, folder, ready_home, scores=["valid_json"])


@METHODS
@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        (
            {"general_text": "nowhere.jsonl"},
            r"nowhere.jsonl cannot be read (.*No such file or directory.*): name another file as scoring.general_text",
        ),
        ({"general_choices": "nowhere.jsonl"}, "name another file as scoring.general_choices"),
        ({"general_choices": "lines.jsonl"}, "lines.jsonl:2: a line must be a JSON object with question, choices"),
        ({"suites": ["boxez"], "suites_folder": "suites"}, "knows no task boxez: correct the name"),
    ],
)
def test_what_cannot_be_scored_is_named_before_training(
    kind: type[SftConfig] | type[DpoConfig],
    folder: Path,
    ready_home: Home,
    monkeypatch: pytest.MonkeyPatch,
    scoring: dict[str, object],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    (folder / "suites").mkdir()
    write_lines(folder / "lines.jsonl", [{"question": "a", "choices": ["b"], "answer": "b"}, {"question": "a"}])
    with pytest.raises(ConfigError, match=message):
        run(kind, folder, ready_home, **scoring)


def test_suites_without_their_harness_say_how_to_install_it(
    folder: Path, ready_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"pip install 'tandem\[harness\]', or empty the setting"):
        run(SftConfig, folder, ready_home, suites=["gsm8k"])
