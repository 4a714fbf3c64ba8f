"""Fine-tunes on public data: the whole way for a few steps; `tests.benchmarks.real_finetunes` goes it to the end."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from flows.finetune_dpo import finetune_dpo
from flows.finetune_sft import finetune_sft
from tests.benchmarks.real_finetunes import banking77, preferences
from tests.realdata import needs_real_data

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [
    pytest.mark.realdata,
    needs_real_data,
    pytest.mark.usefixtures("prefect", "ready_home"),
    pytest.mark.timeout(1500),
]


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/; the paths in it are seen from the repository."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TANDEM_CONF", str(shutil.copytree(ROOT / "conf", tmp_path / "conf")))
    return tmp_path / "conf"


def take_part(dataset: Path, **every: int) -> None:
    """Point a data set's files at copies of their first row and every so many rows on."""
    settings = yaml.safe_load(dataset.read_text())
    for key, step in every.items():
        [source] = settings[key]
        if source.endswith(".csv"):
            part = dataset.with_name(f"{key}.csv")
            pd.read_csv(source).iloc[::step].to_csv(part, index=False)
        else:
            part = dataset.with_name(f"{key}.jsonl")
            pd.read_json(source, lines=True).iloc[::step].to_json(part, orient="records", lines=True)
        settings[key] = [str(part)]
    dataset.write_text(yaml.safe_dump(settings))


def test_questions_to_a_bank_are_read_checked_and_learned(conf: Path) -> None:
    take_part(conf / "datasets" / "banking77.yaml", sources=15, held_out=20)
    config = banking77(max_steps=6, batch_rows=16)
    done = finetune_sft(config.model_copy(update={"scoring": config.scoring.model_copy(update={"max_rows": 10})}))
    assert done.counts["steps"] == 6
    assert done.counts["rows: held_out"] == 154
    assert done.scores["candidate"]["held_out_loss"] < done.scores["base"]["held_out_loss"]


def test_transcripts_with_a_preference_are_read_checked_and_learned(conf: Path) -> None:
    take_part(conf / "datasets" / "preferences.yaml", sources=5)
    config = preferences(max_steps=2, max_length=64)
    done = finetune_dpo(config.model_copy(update={"checks": config.checks.model_copy(update={"max_cut": 1.0})}))
    assert (done.counts["steps"], done.counts["rows: malformed"]) == (2, 2)
    assert 0 < done.scores["base"]["preference_accuracy"] < 1
