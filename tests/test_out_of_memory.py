"""A training whose memory runs out goes on with half the rows at once."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.config.settings import Home
from tasks.errors import TrainingError
from tasks.records import Trained
from tasks.registry.connection import connect
from tasks.registry.runs import read_text, start_run
from tasks.train import train
from tasks.training.base import hash_base
from tasks.training.job import TrainingJob
from tests.little_memory import LIMIT, PEAK_FILE
from tests.tiny_models import sft_job, write_rows

pytestmark = pytest.mark.usefixtures("tiny_conf", "prefect")
ROWS = 512
SPARE = 1.35
"""Times what half the rows take is more than enough for them, and too little for all."""
ENOUGH_TO_LOAD = 100 * 2**20


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingJob:
    """Two steps, each over all rows; what may be held at once is more than that."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums in the same order with little memory and with enough
    rows = write_rows(tmp_path / "rows.parquet", ROWS)
    return replace(sft_job(tmp_path / "job", tiny_model, rows, batch_rows=ROWS, epochs=2), rows_at_once=4 * ROWS)


def trained(job: TrainingJob, home: Home, monkeypatch: pytest.MonkeyPatch, limit: int | None) -> tuple[Trained, str]:
    """The training's result, and the decisions that its MLflow run shows."""
    with monkeypatch.context() as patch:
        patch.setattr("tasks.train.WORKER", "tests.little_memory")
        if limit:
            patch.setenv(LIMIT, str(limit))
        client = connect(home)
        run_id = start_run(client, "adapter-tiny", "a fine-tune", "tiny")
        return train.fn("tiny", job, run_id), read_text(client, run_id, "decisions.txt")


def test_it_becomes_the_adapter_it_would_have_become_with_half_the_rows_from_the_start(
    job: TrainingJob, ready_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = replace(job, folder=tmp_path / "half", rows_at_once=ROWS // 2)
    theirs, _ = trained(half, ready_home, monkeypatch, None)
    needed = int((half.folder / PEAK_FILE).read_text())
    ours, shown = trained(job, ready_home, monkeypatch, int(SPARE * needed))
    sentence = "memory ran out with 512 rows at once: went on with 256, and more accumulation"
    assert [decision for decision in ours.decisions if "memory" in decision] == [sentence]
    assert shown.splitlines().count(sentence) == 1
    assert ours.steps == theirs.steps == 2
    assert hash_base(Path(ours.adapter)) == hash_base(Path(theirs.adapter))


def test_what_was_decided_at_first_is_kept_where_a_restart_measures_anew(
    tiny_model: Path, ready_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.train.WORKER", "tests.measuring_anew")
    client = connect(ready_home)
    run_id = start_run(client, "adapter-tiny", "a fine-tune", "tiny")
    job = sft_job(tmp_path / "job", tiny_model, tmp_path / "no rows")
    decisions = train.fn("tiny", job, run_id).decisions
    assert decisions == (
        "fp32 weights: it took 10 ms",
        "memory ran out with 4 rows at once: went on with 2, and more accumulation",
    )
    assert read_text(client, run_id, "decisions.txt") == "\n".join(decisions)


def test_too_little_for_one_row_is_said(
    tiny_model: Path, ready_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"role": "assistant", "content": " box" * 32_000}
    row = {"messages": [{"role": "user", "content": "how many?"}, answer]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    job = sft_job(tmp_path / "job", tiny_model, tmp_path / "rows.parquet", batch_rows=1, max_length=32_000)
    with pytest.raises(TrainingError, match=r"not enough memory for one row at a time: lower training.max_length"):
        trained(replace(job, rows_at_once=1), ready_home, monkeypatch, ENOUGH_TO_LOAD)
