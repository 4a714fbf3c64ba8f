"""Training processes: real ones, on a tiny model of random weights."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import get_args

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from tasks.config.training import DpoOptimizerConfig
from tasks.errors import ModelError, ProcessDiedError, TrainingError
from tasks.training.adapter import SharedBase
from tasks.training.base import hash_base, load_base
from tasks.training.job import Event, EventReader, EventWriter, TrainingJob
from tasks.training.process import run_job
from tasks.training.watching import Watch
from tasks.training.worker import main
from tests.tiny_models import TEMPLATE, dpo_job, make_model, sft_job, write_pairs, write_rows
from tests.waiting import wait_for

WORKER = "tasks.training.worker"
pytestmark = pytest.mark.usefixtures("tiny_conf")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "train.parquet", 64)


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    return run(sft_job(tmp_path_factory.mktemp("undisturbed"), tiny_model, rows, epochs=4))


def run(job: TrainingJob) -> list[Event]:
    """In a process of its own, as a fine-tune does."""
    return list(run_job(WORKER, job))


def run_here(job: TrainingJob) -> list[Event]:
    """In this process, which has the libraries loaded: for what another process would do no differently."""
    file, events = job.save(), EventReader(job.folder)
    main(file)
    return list(events.read())


def weights(event: Event) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(Path(event["adapter"]) / "adapter_model.safetensors")


def distance(one: Event, other: Event) -> float:
    """The largest difference of any weight, beside the largest weight."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    largest = max(float(tensor.abs().max()) for tensor in ours.values())
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours) / largest


def losses(events: list[Event]) -> list[float]:
    return [event["metrics"]["loss"] for event in events if event["event"] == "log"]


def test_a_training_learns_its_rows_and_leaves_an_adapter(undisturbed: list[Event]) -> None:
    assert losses(undisturbed)[-1] < 0.9 * losses(undisturbed)[0]
    done = undisturbed[-1]
    assert done["event"] == "done"
    assert {path.name for path in Path(done["adapter"]).iterdir()} >= {"adapter_config.json", "tokenizer.json"}
    points = next(event["metrics"] for event in undisturbed if event["event"] == "log")
    assert {"loss", "learning_rate", "gradient_norm", "tokens_per_second"} <= points.keys()


def test_packed_rows_are_learned_as_well(tiny_model: Path, rows: Path, tmp_path: Path) -> None:
    packed = run_here(sft_job(tmp_path, tiny_model, rows, epochs=8, packing=True))
    assert losses(packed)[-1] < 0.9 * losses(packed)[0]


def test_the_same_seed_gives_the_same_adapter(
    undisturbed: list[Event], tiny_model: Path, rows: Path, tmp_path: Path
) -> None:
    again = run_here(sft_job(tmp_path, tiny_model, rows, epochs=4))
    assert hash_base(Path(again[-1]["adapter"])) == hash_base(Path(undisturbed[-1]["adapter"]))
    other = run_here(sft_job(tmp_path / "other", tiny_model, rows, epochs=4, seed=1))
    assert distance(again[-1], other[-1]) > 0.1


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_adapter(
    undisturbed: list[Event], tiny_model: Path, rows: Path, tmp_path: Path, processes: int
) -> None:
    machine = {"checkpoint_minutes": 1e-6, "processes": processes}
    job = sft_job(tmp_path, tiny_model, rows, machine=machine, epochs=4)
    calm = undisturbed if processes == 1 else run(replace(job, folder=tmp_path / "calm"))
    with pytest.raises(ProcessDiedError, match="SIGKILL"):
        kill_at_step(job, 3)
    last = newest_checkpoint(job)
    resumed = run(replace(job, checkpoint=last))
    assert 3 <= next(event["step"] for event in resumed if event["event"] == "begin") < resumed[-1]["steps"]
    assert distance(resumed[-1], calm[-1]) < 1e-5


def test_a_training_that_goes_on_keeps_its_precision(tiny_model: Path, rows: Path, tmp_path: Path) -> None:
    begun = sft_job(tmp_path, tiny_model, rows, machine={"precision": "bf16", "checkpoint_minutes": 1e-6}, max_steps=2)
    run_here(begun)
    checkpoint = newest_checkpoint(begun).with_name("checkpoint-1")
    resumed = run_here(replace(sft_job(tmp_path / "again", tiny_model, rows, max_steps=2), checkpoint=checkpoint))
    decided = {event["kind"]: event["text"] for event in resumed if event["event"] == "decision"}
    assert decided["precision"] == "bf16 weights, as in the checkpoint that the training goes on from"


def test_two_processes_settle_on_one_precision(tiny_model: Path, rows: Path, tmp_path: Path) -> None:
    machine = {"processes": 2, "precision": "auto"}
    events = run(sft_job(tmp_path, tiny_model, rows, machine=machine, max_steps=1))
    assert events[-1]["event"] == "done"
    assert sum(" weights: " in event["text"] for event in events if event["event"] == "decision") == 1


def kill_at_step(job: TrainingJob, step: int) -> None:
    for event in run_job(WORKER, job):
        if event["event"] == "checkpoint" and event["step"] == step:
            for process in workers(job):
                process.kill()


def newest_checkpoint(job: TrainingJob) -> Path:
    """The newest that was told of: a later one may be there in part."""
    events = map(json.loads, (job.folder / "events.jsonl").read_text().splitlines())
    return Path([event["folder"] for event in events if event["event"] == "checkpoint"][-1])


def workers(job: TrainingJob) -> list[psutil.Process]:
    file = str(job.folder / "job.json")
    return [found for found in psutil.process_iter(["cmdline"]) if file in (found.info["cmdline"] or [])]


@pytest.mark.parametrize(("worker", "fsdp"), [(WORKER, False), ("tests.fsdp_on_cpu", True)])
def test_two_processes_train_the_adapter_of_one(
    undisturbed: list[Event], tiny_model: Path, rows: Path, tmp_path: Path, worker: str, fsdp: bool
) -> None:
    job = sft_job(tmp_path, tiny_model, rows, machine={"processes": 2, "fsdp": fsdp}, epochs=4)
    together = list(run_job(worker, job))
    assert weights(together[-1]).keys() == weights(undisturbed[-1]).keys()
    assert together[-1]["steps"] == undisturbed[-1]["steps"]
    assert [event["event"] for event in together].count("done") == 1
    assert losses(together) == pytest.approx(losses(undisturbed), rel=0.02)


def test_two_processes_learn_the_preferences_of_one(tiny_model: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.parquet", 16)
    together = run(dpo_job(tmp_path / "two", tiny_model, pairs, machine={"processes": 2}, max_steps=2))
    alone = run_here(dpo_job(tmp_path / "one", tiny_model, pairs, max_steps=2))
    assert together[-1]["event"] == "done"
    assert losses(together) == pytest.approx(losses(alone), rel=0.02)


@pytest.mark.parametrize(
    ("losses", "explodes"),
    [
        ([2.0, 1.8, 1.6, 1.5, 1.4, 1.3, 9.0, 1.2, 1.1, 1.0, 1.0, 0.9], False),  # one bad batch
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], False),  # many times nothing is little
        ([0.1, 2.0, 2.1, 1.9, 2.0, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.2], False),  # easy rows first
        ([2.0, 1.8, 1.6, 1.5, 1.4, 1.3, 9.0, 9.5, 9.0, 9.2, 9.1, 9.0], True),
        ([2.3, 6.0, 8.0, 8.0, 8.0], True),  # from the second step on
        ([0.69, 30.0, 45.0, 60.0, 50.0], True),
        ([5.0, 2.0, 2.0, 2.0, 2.0, 2.0, 8.0, 8.0, 8.0, 8.0, 8.0], True),  # hard rows first
    ],
)
def test_a_loss_that_stays_far_above_its_start_is_an_explosion(
    losses: list[float], explodes: bool, tmp_path: Path
) -> None:
    watch = Watch(EventWriter(tmp_path), 10, 0.0, None)
    settings, state, control = TrainingArguments(tmp_path, use_cpu=True), TrainerState(), TrainerControl()
    watch.on_train_begin(settings, state, control)
    stops = pytest.raises(TrainingError, match=r"exploded.*lower training.learning_rate") if explodes else nullcontext()
    with stops:
        for step, loss in enumerate(losses):
            state.global_step = step
            watch.on_log(settings, state, control, {"loss": loss})


def test_a_loss_that_is_no_number_stops_the_training(rows: Path, tmp_path: Path) -> None:
    broken = edited_model(tmp_path / "model", "model.norm.weight", lambda weight: weight.fill_(float("nan")))
    [*_, failed] = run_here(sft_job(tmp_path, broken, rows))
    assert failed["event"] == "failed"
    assert "the loss was nan at step 1" in failed["reason"]


def edited_model(folder: Path, name: str, edit: Callable[[torch.Tensor], object]) -> Path:
    file = make_model(folder) / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    edit(tensors[name])
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    return folder


def test_a_process_that_is_no_longer_wanted_is_killed(tiny_model: Path, rows: Path, tmp_path: Path) -> None:
    job = sft_job(tmp_path, tiny_model, rows, epochs=100)
    with closing(run_job(WORKER, job)) as events:
        next(event for event in events if event["event"] == "step")
        assert workers(job)
    assert not workers(job)


def test_a_training_dies_with_whoever_started_it(tiny_model: Path, rows: Path, tmp_path: Path) -> None:
    job = sft_job(tmp_path, tiny_model, rows, epochs=100)
    file = job.save()
    code = (
        "import sys; from pathlib import Path; from tasks.training.job import TrainingJob; "
        "from tasks.training.process import run_job; list(run_job(sys.argv[1], TrainingJob.read(Path(sys.argv[2]))))"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, WORKER, str(file)])
    try:
        wait_for(lambda: any(found.ppid() == starter.pid for found in workers(job)), 60)
    finally:
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
    start = time.monotonic()
    wait_for(lambda: not workers(job), 10)
    assert time.monotonic() - start < 10


def test_preferences_raise_the_margin_of_a_new_adapter_and_of_one_that_goes_on(
    undisturbed: list[Event], tiny_model: Path, tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path / "pairs.parquet", 48)
    for name, parent in (("new", None), ("on", Path(undisturbed[-1]["adapter"]))):
        events = run_here(dpo_job(tmp_path / name, tiny_model, pairs, parent, epochs=2))
        margins = [event["metrics"]["dpo_margin"] for event in events if event["event"] == "log"]
        assert abs(margins[0]) < 1e-3 < margins[-1], name
        assert not (Path(events[-1]["adapter"]) / "ref").exists()
    assert distance(events[-1], undisturbed[-1]) > 0


def test_every_loss_over_pairs_moves_the_adapter(tiny_model: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.parquet", 4)
    settings = {"max_steps": 1, "batch_rows": 4, "warmup": 0, "label_smoothing": 0.001}
    for loss in get_args(DpoOptimizerConfig.model_fields["loss"].annotation):
        events = run_here(dpo_job(tmp_path / loss, tiny_model, pairs, loss=loss, **settings))
        assert events[-1]["event"] == "done", events[-1]
        moved = [tensor for name, tensor in weights(events[-1]).items() if "lora_B" in name]  # they begin at nothing
        assert all(tensor.isfinite().all() and tensor.any() for tensor in moved), loss


def test_a_scaled_and_a_decomposed_adapter_say_so_and_load(tiny_model: Path, rows: Path, tmp_path: Path) -> None:
    events = run_here(sft_job(tmp_path, tiny_model, rows, lora={"rslora": True, "dora": True}, max_steps=2))
    adapter = Path(events[-1]["adapter"])
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["use_dora"]) == (True, True)
    assert any("lora_magnitude_vector" in name for name in weights(events[-1]))
    base = SharedBase(tiny_model)
    with base.using(base.add(adapter)) as model:
        layer = model.get_submodule("base_model.model.model.layers.0.mlp.up_proj")
        assert layer.scaling["adapter_0"] == config["lora_alpha"] / config["r"] ** 0.5
        assert "adapter_0" in layer.lora_magnitude_vector


def test_a_failure_that_would_only_come_again_is_said_and_not_tried_again(tiny_model: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"messages": [1, 2]}), tmp_path / "rows.parquet")
    [*_, failed] = run_here(sft_job(tmp_path / "job", tiny_model, tmp_path / "rows.parquet"))
    assert failed["event"] == "failed"
    assert re.match(r"the training stopped with \w+: .+ \(.+\.py, line \d+\); mend what it names", failed["reason"])


def test_the_end_of_an_answer_is_learned_whatever_the_template_marks(
    undisturbed: list[Event], rows: Path, tmp_path: Path
) -> None:
    endless = TEMPLATE.replace("<|end|>{% endgeneration %}", "{% endgeneration %}<|end|>")
    unmarked = TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    for name, template in (("endless", endless), ("unmarked", unmarked)):
        events = run_here(sft_job(tmp_path / name, make_model(tmp_path / f"{name} model", template), rows, epochs=4))
        assert hash_base(Path(events[-1]["adapter"])) == hash_base(Path(undisturbed[-1]["adapter"]))


def test_rows_whose_answers_would_continue_no_prompt_are_refused(rows: Path, tmp_path: Path) -> None:
    thinks = TEMPLATE.replace("<|start|>assistant\n{% endif %}", "<|start|>assistant\n<think>\n{% endif %}")
    events = run_here(sft_job(tmp_path / "job", make_model(tmp_path / "model", thinks), rows))
    assert events[-1]["event"] == "failed"
    assert "an answer does not continue the prompt" in events[-1]["reason"]


def test_a_base_model_in_four_bits_is_trained_on(
    undisturbed: list[Event], tiny_model: Path, rows: Path, tmp_path: Path
) -> None:
    job = sft_job(tmp_path, tiny_model, rows, epochs=4)
    rounded = run(replace(job, base=job.base.model_copy(update={"four_bit": True})))
    assert losses(rounded)[-1] == pytest.approx(losses(undisturbed)[-1], rel=0.1)
    assert losses(rounded) != losses(undisturbed)


def test_a_base_model_that_needs_a_library_which_is_not_installed_says_so(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def needs(*args: object, **kwargs: object) -> None:
        raise ImportError("pip install bitsandbytes")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", needs)
    with pytest.raises(ModelError, match="cannot be loaded: pip install bitsandbytes"):
        load_base(tiny_model, torch.float32, four_bit=True)


def test_modules_that_the_model_does_not_have_are_named(tiny_model: Path, rows: Path, tmp_path: Path) -> None:
    job = sft_job(tmp_path, tiny_model, rows)
    assert job.sft
    lora = job.sft.lora.model_copy(update={"target_modules": ("query",)})
    wrong = TrainingJob(job.folder, job.base, job.sft.model_copy(update={"lora": lora}), None, job.train)
    [*_, failed] = run_here(wrong)
    assert "query" in failed["reason"]
    assert "q_proj" in failed["reason"]


def test_a_model_that_is_not_there_is_named(rows: Path, tmp_path: Path) -> None:
    [*_, failed] = run_here(sft_job(tmp_path, tmp_path / "nowhere", rows))
    assert str(tmp_path / "nowhere") in failed["reason"]


def test_a_folder_without_weights_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights"):
        hash_base(tmp_path)
