"""A training process: ``python -m tasks.training.worker JOB_FILE``, by `tasks.training.process.run_job`."""

import shutil
import sys
from pathlib import Path
from typing import Any

from tasks.config.training import MachineConfig
from tasks.errors import TandemError
from tasks.training.job import ADAPTER_FOLDER, PRECISION_FILE, EventWriter, TrainingJob
from tasks.training.process import begin

OUT_OF_MEMORY = "can't allocate memory"
"""What torch says, in an ordinary RuntimeError, where a CPU's memory runs out."""


def main(file: Path) -> int:
    """Run the job; its end is an event. Returns the exit status."""
    job = TrainingJob.read(file)
    begin(job)
    events = EventWriter(job.folder)
    try:
        events.write("done", **train(job, events))
    except TandemError as error:
        events.write("failed", reason=str(error))
        return 1
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        events.write("out of memory", rows_at_once=job.rows_at_once)
        return 1
    return 0


def train(job: TrainingJob, events: EventWriter) -> dict[str, Any]:
    """Train and save the adapter; returns what the closing event says."""
    from tasks.training.base import fetch_base, load_base, load_tokenizer
    from tasks.training.lora import new_adapter, parent_adapter
    from tasks.training.speed import choose_speed, dtype_of, flops_per_token, peak_flops
    from tasks.training.trainers import dpo_trainer, sft_trainer
    from tasks.training.watching import Watch

    folder = fetch_base(job.base)
    speed = choose_speed(_as_before(job), folder)
    for reason in speed.reasons:
        events.write("decision", text=reason)
    tokenizer = load_tokenizer(folder)
    model = load_base(folder, dtype_of(speed.precision), attention=speed.attention, four_bit=job.base.four_bit)
    config = job.config
    model = parent_adapter(model, job.parent) if job.parent else new_adapter(model, config.lora, config.training.seed)
    watch = Watch(events, config.machine.checkpoint_minutes, flops_per_token(model), peak_flops())
    if job.sft:
        trainer = sft_trainer(job, job.sft, model, tokenizer, speed, [watch])
    else:
        assert job.dpo is not None
        trainer = dpo_trainer(job, job.dpo, model, tokenizer, speed, [watch])
    result = trainer.train(resume_from_checkpoint=str(job.checkpoint) if job.checkpoint else None)
    adapter = job.folder / ADAPTER_FOLDER
    trainer.save_model(str(adapter))  # by all processes: under FSDP each holds a part
    if trainer.accelerator.is_main_process:
        for rest in ("training_args.bin", "ref", "README.md"):  # the reference of DPO, and what says nothing
            remove(adapter / rest)
    done = {"steps": result.global_step, "seconds": result.metrics["train_runtime"]}
    return {"adapter": str(adapter), "precision": speed.precision, **done}


def _as_before(job: TrainingJob) -> MachineConfig:
    """A training that goes on keeps its precision, whatever would measure faster now."""
    machine = job.config.machine
    if job.checkpoint is None:
        return machine
    return machine.model_copy(update={"precision": (job.checkpoint / PRECISION_FILE).read_text()})


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or OUT_OF_MEMORY in str(error)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
