"""A training whose memory runs out goes on with half the rows at once, and at last with gradient checkpointing."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tasks.config.settings import Home
from tasks.errors import TrainingError
from tasks.records import Trained
from tasks.registry.connection import connect
from tasks.registry.runs import read_tags, start_run
from tasks.train import DECISION_TAG, train
from tasks.training.base import hash_base
from tasks.training.job import TrainingJob
from tests.little_memory import LIMIT, PEAK_FILE
from tests.tiny_models import sft_job, write_rows

pytestmark = pytest.mark.usefixtures("tiny_conf", "prefect")
ROWS = 512
TOO_LITTLE_FOR_ALL = 310 * 2**20
"""All rows take 409 MiB, half of them 236, eight of them 66."""
GIVE_BACK_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
"""How glibc is told so: else it keeps what was freed as it sees fit, up to 500 MiB more in one run than in another."""
ENOUGH_TO_LOAD = 100 * 2**20


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingJob:
    """Two steps, each over all rows; what may be held at once is more than that."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums in the same order with little memory and with enough
    rows = write_rows(tmp_path / "rows.parquet", ROWS)
    return replace(sft_job(tmp_path / "job", tiny_model, rows, batch_rows=ROWS, epochs=2), rows_at_once=4 * ROWS)


def trained(
    job: TrainingJob,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    limit: int | None = None,
    worker: str = "tests.little_memory",
) -> tuple[Trained, dict[str, str]]:
    """The training's result, and the tags of its MLflow run."""
    with monkeypatch.context() as patch:
        patch.setattr("tasks.train.WORKER", worker)
        if limit:
            patch.setenv(LIMIT, str(limit))
        for name, value in GIVE_BACK_AT_ONCE.items():
            patch.setenv(name, value)
        client = connect(home)
        run_id = start_run(client, "adapter-tiny", "a fine-tune", "tiny")
        return train.fn("tiny", job, run_id), read_tags(client, run_id)


def test_it_becomes_the_adapter_it_would_have_become_with_as_few_rows_from_the_start(
    job: TrainingJob, ready_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, shown = trained(job, ready_home, monkeypatch, TOO_LITTLE_FOR_ALL)
    decisions = [decision for decision in ours.decisions if "memory" in decision]
    assert decisions[0] == "memory ran out with 512 rows at once: went on with 256, and more accumulation"
    assert shown["decision.memory for 512 rows at once"] == decisions[0]
    fewer = replace(job, folder=tmp_path / "fewer", rows_at_once=ROWS // 2 ** len(decisions))
    theirs, _ = trained(fewer, ready_home, monkeypatch)
    assert ours.steps == theirs.steps == 2
    assert hash_base(Path(ours.adapter)) == hash_base(Path(theirs.adapter))


def test_what_was_decided_at_first_is_kept_where_a_restart_measures_anew(
    tiny_model: Path, ready_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sft_job(tmp_path / "job", tiny_model, tmp_path / "no rows")
    done, tags = trained(job, ready_home, monkeypatch, worker="tests.measuring_anew")
    decisions = done.decisions
    assert decisions == (
        "fp32 weights: it took 10 ms",
        "memory ran out with 4 rows at once: went on with 2, and more accumulation",
    )
    assert tuple(text for tag, text in tags.items() if tag.startswith(DECISION_TAG)) == tuple(sorted(decisions))


def test_where_one_row_is_too_much_gradient_checkpointing_is_tried(
    tiny_model: Path, ready_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(sft_job(tmp_path / "job", tiny_model, tmp_path / "no rows"), rows_at_once=2)
    done, _ = trained(job, ready_home, monkeypatch, worker="tests.measuring_anew")
    assert done.decisions[1:] == (
        "memory ran out with 2 rows at once: went on with 1, and more accumulation",
        "memory ran out with one row at once: went on with gradient checkpointing, which computes more",
    )


def test_gradient_checkpointing_makes_the_same_adapter_with_less_memory(
    tiny_model: Path, ready_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeps = long_row(tmp_path, tiny_model, 8_000)
    again = replace(keeps, folder=tmp_path / "again", recompute=True)
    adapters = [Path(trained(job, ready_home, monkeypatch)[0].adapter) for job in (keeps, again)]
    peaks = [int((job.folder / PEAK_FILE).read_text()) for job in (keeps, again)]
    assert peaks[1] < 0.95 * peaks[0]
    one, other = (load_file(adapter / "adapter_model.safetensors") for adapter in adapters)
    assert one.keys() == other.keys()
    for name, weights in one.items():
        torch.testing.assert_close(weights, other[name], rtol=1e-4, atol=1e-6)


def long_row(folder: Path, model: Path, words: int) -> TrainingJob:
    """Two steps over one row."""
    answer = {"role": "assistant", "content": " box" * words}
    row = {"messages": [{"role": "user", "content": "how many?"}, answer]}
    pq.write_table(pa.Table.from_pylist([row]), folder / "rows.parquet")
    return sft_job(folder / "job", model, folder / "rows.parquet", batch_rows=1, max_length=words, max_steps=2)


def test_too_little_for_one_row_is_said(
    tiny_model: Path, ready_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = long_row(tmp_path, tiny_model, 32_000)
    with pytest.raises(TrainingError, match=r"not enough memory for one row at a time: lower training.max_length"):
        trained(job, ready_home, monkeypatch, ENOUGH_TO_LOAD)
