"""One side of the comparison, in a process of its own: a training job by Tandem's worker, or by TRL as it comes.

    python -m tests.benchmarks.training_side SIDE JOB_FILE    # one of SIDES

Both sides read the same job: data, rows a step, steps, learning rate, seed, shape of the adapter. Prints, as its last
line, one JSON object.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tasks.training.job import CHECKPOINTS_FOLDER, EventReader, EventWriter, TrainingJob
from tasks.training.lora import new_adapter
from tasks.training.speed import flops_per_token
from tasks.training.worker import is_out_of_memory, train

SIDE_OF_A_MATRIX = {"cuda": 8192, "cpu": 2048}
SECONDS_OF_MATRICES = 2.0


def by_tandem(job: TrainingJob) -> dict[str, Any]:
    """As a flow's training process does it, the reference of DPO timed apart."""
    from trl import DPOTrainer

    reference: list[float] = []
    compute = DPOTrainer._precompute_ref_logps

    def timed(*args: Any) -> Any:
        start = time.perf_counter()
        try:
            return compute(*args)
        finally:
            reference.append(time.perf_counter() - start)

    DPOTrainer._precompute_ref_logps = timed
    reader = EventReader(job.folder)
    train(job, EventWriter(job.folder))
    events = list(reader.read())
    ends = [event["at"] for event in events if event["event"] == "step"]
    logs = [event["metrics"] for event in events if event["event"] == "log"]
    return {
        "begin": next(event["at"] for event in events if event["event"] == "begin"),
        "steps": [{"at": at, "tokens": log["tokens"], "loss": log["loss"]} for at, log in zip(ends, logs, strict=True)],
        "reference_seconds": sum(reference),
        "decisions": [event["text"] for event in events if event["event"] == "decision"],
        "rows_at_once": job.rows_at_once,
    }


class Clock(TrainerCallback):
    """When the training began, and when each step ended; it may end after a few."""

    def __init__(self, steps: int | None) -> None:
        self.begin = 0.0
        self.steps = steps
        self.ends: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.begin = time.time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.time())
        control.should_training_stop |= len(self.ends) == self.steps


def by_trl(job: TrainingJob, steps: int | None = None, **settings: Any) -> dict[str, Any]:
    """As TRL's documentation shows it: nothing is set but what the job asks for, and `settings`.

    It may end after a few of the job's `steps`.

    TRL's own rows at once are halved, with more accumulation, where memory runs out.
    """
    from trl import SFTConfig

    rows = SFTConfig.per_device_train_batch_size
    while True:
        try:
            return run_trl(job, rows, Clock(steps), settings)
        except RuntimeError as error:
            if rows == 1 or not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        rows //= 2


def run_trl(job: TrainingJob, rows_at_once: int, clock: Clock, more: dict[str, Any]) -> dict[str, Any]:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    training, lora = job.config.training, job.config.lora
    settings = {
        "output_dir": str(job.folder / CHECKPOINTS_FOLDER),
        "max_steps": training.max_steps,
        "learning_rate": training.learning_rate,
        "warmup_steps": training.warmup,
        "per_device_train_batch_size": rows_at_once,
        "gradient_accumulation_steps": training.batch_rows // rows_at_once,
        "max_length": training.max_length,
        "seed": training.seed,
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **more,
    }
    common = {
        "model": job.base.model,
        "train_dataset": Dataset.from_parquet(str(job.train), cache_dir=str(job.folder / "cache")),
        "peft_config": LoraConfig(
            task_type="CAUSAL_LM", r=lora.rank, lora_alpha=int(lora.alpha), target_modules="all-linear"
        ),
        "callbacks": [clock],
    }
    if job.sft:
        trainer: Any = SFTTrainer(args=SFTConfig(assistant_only_loss=True, **settings), **common)
    else:
        trainer = DPOTrainer(args=DPOConfig(**settings), **common)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "begin": clock.begin,
        "steps": [
            {"at": at, "tokens": log["num_tokens"], "loss": log["loss"]}
            for at, log in zip(clock.ends, logs, strict=True)
        ],
        "reference_seconds": 0.0,
        "decisions": [],
        "rows_at_once": rows_at_once,
    }


SIDES = {
    "tandem": by_tandem,
    "trl": by_trl,
    "trl-briefly": partial(by_trl, steps=4),
    "trl-fp32": partial(by_trl, bf16=False),
}


def matrix_rate(device: str) -> float:
    """Operations a second of large matrix products, bf16 on a GPU and fp32 on a CPU, the best of a few seconds."""
    side, dtype = SIDE_OF_A_MATRIX[device], {"cuda": torch.bfloat16, "cpu": torch.float32}[device]
    left, right = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    best, begin = 0.0, time.perf_counter()
    while time.perf_counter() - begin < SECONDS_OF_MATRICES:
        start = time.perf_counter()
        for _ in range(10):
            left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 10 * 2 * side**3 / (time.perf_counter() - start))
    return best


def operations_per_token(job: TrainingJob) -> float:
    """Of the job's model with its adapter, which is not loaded for it."""
    with torch.device("meta"):
        from transformers import AutoConfig, AutoModelForCausalLM

        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(job.base.model))
        return flops_per_token(new_adapter(model, job.config.lora, seed=0))


def main() -> None:
    side, file = sys.argv[1:]
    job = TrainingJob.read(Path(file))
    start = time.time()
    found = SIDES[side](job)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(
        json.dumps(
            found
            | {
                "start_seconds": found["steps"][0]["at"] - start,
                "peak_gb": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
                "matrix_rate": matrix_rate(device),
                "operations_per_token": operations_per_token(job),
            }
        )
    )


if __name__ == "__main__":
    main()
