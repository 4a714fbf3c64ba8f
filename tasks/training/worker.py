"""A training process: ``python -m tasks.training.worker JOB_FILE``, by `tasks.training.process.run_job`."""

import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

from tasks.errors import TandemError
from tasks.training.job import ADAPTER_FOLDER, PRECISION_FILE, EventWriter, TrainingJob
from tasks.training.process import begin
from tasks.training.speed import Precision

OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory")
"""What torch says, in an ordinary RuntimeError, where the memory of a CPU or of a GPU's driver runs out."""


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
    except Exception as error:
        if is_out_of_memory(error):
            events.write("out of memory", rows_at_once=job.rows_at_once)
        elif isinstance(error, RuntimeError):
            raise  # a device or another process is lost, and another try may end well
        else:
            traceback.print_exc()
            events.write("failed", reason=_sentence(error))
        return 1
    return 0


def _sentence(error: Exception) -> str:
    """What another try would only say again."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"the training stopped with {type(error).__name__}: {error} ({last.filename}, line {last.lineno}); mend what "
        "it names in the configuration, the rows or the base model"
    )


def train(job: TrainingJob, events: EventWriter) -> dict[str, Any]:
    """Train and save the adapter; returns what the closing event says."""
    from tasks.training.base import fetch_base, load_base, load_tokenizer
    from tasks.training.lora import new_adapter, parent_adapter
    from tasks.training.speed import choose_speed, dtype_of, flops_per_token, peak_flops
    from tasks.training.trainers import dpo_trainer, sft_trainer, written_lessons
    from tasks.training.watching import Watch

    take_own_gpu()
    folder = fetch_base(job.base)
    speed = choose_speed(job.machine, folder, _precision_before(job))
    for kind, reason in speed.reasons.items():
        events.write("decision", kind=kind, text=reason)
    tokenizer = load_tokenizer(folder)
    model = load_base(folder, dtype_of(speed.precision), attention=speed.attention, four_bit=job.base.four_bit)
    config = job.config
    model = parent_adapter(model, job.parent) if job.parent else new_adapter(model, config.lora, config.training.seed)
    watch = Watch(events, config.machine.checkpoint_minutes, flops_per_token(model), peak_flops(job.machine.processes))
    if job.sft:
        rows, remark = written_lessons(job, tokenizer)
        if remark:
            events.write("decision", kind="rows", text=remark)
        trainer = sft_trainer(job, job.sft, model, tokenizer, rows, speed, [watch])
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


def take_own_gpu() -> None:
    """Of several processes each loads and computes on a GPU of its own, where all would begin on the first."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def _precision_before(job: TrainingJob) -> Precision | None:
    """A training that goes on keeps its precision, whatever would measure faster now."""
    if job.checkpoint is None:
        return None
    return "bf16" if (job.checkpoint / PRECISION_FILE).read_text() == "bf16" else "fp32"


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_out_of_memory(error: BaseException) -> bool:
    import torch

    said = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in said for words in OUT_OF_MEMORY)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
