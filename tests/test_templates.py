"""The sample's task is learned under the chat templates of known families, and what serves it writes the same."""

import json
import shutil
from pathlib import Path

import pytest

from flows.finetune_sft import finetune_sft
from tasks.adapters import open_adapter
from tasks.answering.local import LocalGenerator
from tasks.answering.structured import read_response_format
from tasks.config.loading import load_config
from tasks.config.settings import Home
from tasks.config.training import SftConfig
from tests.templated import FAMILIES, under_template
from tests.tiny_models import write_yaml

ROOT = Path(__file__).resolve().parents[1]
SUPPORT = ROOT / "data" / "samples" / "support"
STEPS = 80
"""Enough to learn the form of an answer, if not what stands in it."""
ROWS = 20


def small(conf: Path) -> SftConfig:
    config = load_config(conf / "sft" / "support.yaml", SftConfig)
    changes = {
        "training": config.training.model_copy(update={"max_steps": STEPS}),
        "scoring": config.scoring.model_copy(update={"max_rows": ROWS, "examples": 0}),
        "gate": config.gate.model_copy(update={"floors": {"valid_json": 0.95}, "max_forgotten": 1.0}),
    }
    return config.model_copy(update=changes)


@pytest.mark.long
@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("name", ["qwen3", "gemma", "phi"])
def test_the_samples_task_is_learned_under_a_familys_template_and_served_as_it_was_scored(
    name: str, ready_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    conf = shutil.copytree(ROOT / "conf", tmp_path / "conf")
    model = under_template(FAMILIES[name], tmp_path / name)
    write_yaml(conf / "models" / "tiny.yaml", {"model": str(model)})
    monkeypatch.setenv("TANDEM_CONF", str(conf))
    done = finetune_sft(small(conf))
    assert done.scores["candidate"]["valid_json"] >= 0.95
    assert done.scores["base"]["valid_json"] < 0.5
    assert done.version

    adapted = open_adapter("support", done.version, ready_home)
    rows = [json.loads(line) for line in (SUPPORT / "held_out.jsonl").read_text(encoding="utf-8").splitlines()[:ROWS]]
    asked = [[{"role": "user", "content": row["message"]}] for row in rows]
    served = [LocalGenerator(adapted, 64).answer("", [], turns) for turns in asked]
    assert [made.text for made in served] == adapted.answer(asked, 64)
    assert sum(_is_json(made.text) and not made.cut for made in served) >= 0.95 * ROWS
    schema = json.loads((SUPPORT / "schema.json").read_text(encoding="utf-8"))
    wanted = read_response_format({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}})
    assert wanted
    for turns in asked[:5]:
        made = LocalGenerator(adapted, 128).answer("", [], turns, wanted)
        assert not made.cut
        assert wanted.fits(json.loads(made.text))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
