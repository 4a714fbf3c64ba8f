"""Watches a training from within: tells what happens, keeps checkpoints by the clock, stops what diverges."""

import math
import time
from collections import deque
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tasks.errors import TrainingError
from tasks.training.job import PRECISION_FILE, EventWriter

NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "mean_token_accuracy": "token_accuracy",
    "entropy": "entropy",
    "rewards/margins": "dpo_margin",
    "rewards/accuracies": "dpo_accuracy",
    "rewards/chosen": "dpo_chosen",
    "rewards/rejected": "dpo_rejected",
    "logps/chosen": "logps_chosen",
    "logps/rejected": "logps_rejected",
}
"""What TRL logs, by the name it has in MLflow."""
WINDOW = 5
"""Logged losses that are averaged before an explosion is called one."""
EXPLODED = 2.0
"""The loss may rise to this many times what it was at the start …"""
EXPLODED_NATS = 1.0
"""… and this much more, so that a loss near zero may rise a little."""
LOW_NATS = 1.0
"""A first loss below this may be that of a few easy rows; it counts as this much."""


class Watch(TrainerCallback):
    """Reports the steps, keeps checkpoints by the clock, and stops a training whose loss is lost."""

    def __init__(
        self, events: EventWriter, checkpoint_minutes: float, flops_per_token: float, peak: float | None
    ) -> None:
        self._events = events
        self._pause = checkpoint_minutes * 60
        self._flops = flops_per_token
        self._peak = peak
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._tokens = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._kept = self._logged = time.monotonic()
        # a resumed run goes on counting where it was; its first losses are in the history
        history = [entry for entry in state.log_history if "loss" in entry]
        self._first = [entry["loss"] for entry in history[:WINDOW]]
        self._tokens = history[-1].get("num_tokens", 0.0) if history else 0.0
        self._events.write("begin", step=state.global_step, steps=state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._events.write("step", step=state.global_step)
        if _first_process_says(time.monotonic() - self._kept > self._pause) or state.global_step == state.max_steps:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._kept = time.monotonic()
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        (folder / PRECISION_FILE).write_text("bf16" if args.bf16 else "fp32")
        self._events.write("checkpoint", step=state.global_step, folder=str(folder))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        self._stop_if_diverged(logs["loss"], state.global_step)
        metrics = {ours: logs[theirs] for theirs, ours in NAMES.items() if theirs in logs}
        self._events.write("log", step=state.global_step, metrics=metrics | self._rates(logs))

    def _rates(self, logs: dict[str, float]) -> dict[str, float]:
        now, tokens = time.monotonic(), logs.get("num_tokens", 0.0)
        rate = (tokens - self._tokens) / max(now - self._logged, 1e-9)
        self._tokens, self._logged = tokens, now
        peak_share = {"mfu": rate * self._flops / self._peak} if self._peak else {}
        return {"tokens": tokens, "tokens_per_second": rate, **peak_share}

    def _stop_if_diverged(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss was {loss} at step {step}: lower training.learning_rate, or look for rows that break it"
            )
        self._last.append(loss)
        if len(self._first) < WINDOW:
            self._first.append(loss)
        if len(self._last) < WINDOW:
            return
        # the very first is from before any update: an explosion in the next steps raises the mean, and not this
        start = min(max(self._first[0], LOW_NATS), sum(self._first) / len(self._first))
        now = sum(self._last) / WINDOW
        if now > EXPLODED * start + EXPLODED_NATS:
            raise TrainingError(
                f"the loss exploded: {start:.2f} at the start, {now:.2f} at step {step}; lower training.learning_rate"
            )


def _first_process_says(yes: bool) -> bool:
    """What the first process decides, for all: their clocks differ, and a checkpoint is made by all of them or none."""
    import torch

    if not torch.distributed.is_initialized():
        return yes
    said = [yes]
    torch.distributed.broadcast_object_list(said, src=0)
    return said[0]
