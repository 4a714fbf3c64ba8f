"""What a training process is told, and what it tells: a job as a file, and its events as lines of another."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from tasks.config.training import BaseModelConfig, DpoConfig, MachineConfig, SftConfig

JOB_FILE = "job.json"
EVENTS_FILE = "events.jsonl"
LOG_FILE = "log.txt"
ADAPTER_FOLDER = "adapter"
CHECKPOINTS_FOLDER = "checkpoints"
PRECISION_FILE = "precision"
"""In a checkpoint: the precision it was trained in."""
FAILURES = ("failed", "out of memory")
"""Events that any of several processes may tell."""
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training process's work. Its folder is scratch: what must live is kept by whoever started it."""

    folder: Path
    """Takes the events, the checkpoints and, at the end, the adapter."""
    base: BaseModelConfig
    sft: SftConfig | None
    """Set for supervised fine-tuning, …"""
    dpo: DpoConfig | None
    """… or this one, for preferences."""
    train: Path
    """Rows to train on (`tasks.training.dataset`)."""
    parent: Path | None = None
    """Folder of the adapter to go on from."""
    checkpoint: Path | None = None
    """Checkpoint to go on from."""
    rows_at_once: int = 8
    """Rows on a device at once: the most, up to what is given here, that divide one process's share of a step."""
    recompute: bool = False
    """Whether the backward pass computes activations again instead of keeping them: slower, with less memory."""

    def __post_init__(self) -> None:
        most = min(self.rows_at_once, self.share)
        object.__setattr__(self, "rows_at_once", max(n for n in range(1, most + 1) if self.share % n == 0))

    @property
    def share(self) -> int:
        """Rows of one process in a step of the optimizer."""
        return self.config.training.batch_rows // self.machine.processes

    @property
    def accumulation(self) -> int:
        """Times that a process takes `rows_at_once` in a step of the optimizer."""
        return self.share // self.rows_at_once

    @property
    def kind(self) -> Literal["sft", "dpo"]:
        return "sft" if self.sft else "dpo"

    @property
    def config(self) -> SftConfig | DpoConfig:
        config = self.sft or self.dpo
        assert config is not None
        return config

    @property
    def machine(self) -> MachineConfig:
        return self.config.machine

    def save(self) -> Path:
        """Write the job into its folder; returns the file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / JOB_FILE
        file.write_bytes(TypeAdapter(TrainingJob).dump_json(self, indent=1))
        return file

    @classmethod
    def read(cls, file: Path) -> "TrainingJob":
        return TypeAdapter(cls).validate_json(file.read_bytes())


class EventWriter:
    """Appends events, each a line that is there whole or not at all. Of several processes, the first one speaks."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / EVENTS_FILE).open("a", encoding="utf-8")
        self._first = os.environ.get("RANK", "0") == "0"

    def write(self, event: str, **values: Any) -> None:
        if not self._first and event not in FAILURES:
            return
        self._file.write(json.dumps({"event": event, "at": time.time(), **values}) + "\n")
        self._file.flush()


class EventReader:
    """Reads the events that were added since the last time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS_FILE
        self._read = self._path.stat().st_size if self._path.exists() else 0

    def read(self) -> Iterator[Event]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                yield json.loads(line)
