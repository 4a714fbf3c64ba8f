"""What a scoring process is told, and the numbers and texts that it leaves behind."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from tasks.config.training import BaseModelConfig, MachineConfig, ScoringConfig

JOB_FILE = "scoring.json"
RESULT_FILE = "scored.json"
BASE = "base"
BASE_WITH_EXAMPLES = "base with examples"


@dataclass(frozen=True, slots=True)
class ScoringJob:
    """Several adapters, and the base model without one, on the same rows."""

    folder: Path
    base: BaseModelConfig
    adapters: dict[str, Path]
    """Folders by the name of the contender: candidate, champion, parent."""
    held_out: Path
    """Rows to score on (`tasks.training.dataset`)."""
    train: Path
    """Rows that the examples in the prompt come from."""
    scoring: ScoringConfig
    max_length: int
    seed: int
    machine: MachineConfig
    kept: Path | None = None
    """Folder of what contenders did before (`tasks.training.kept`)."""

    def save(self) -> Path:
        """Write the job into its folder; returns the file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / JOB_FILE
        file.write_bytes(TypeAdapter(ScoringJob).dump_json(self, indent=1))
        return file

    @classmethod
    def read(cls, file: Path) -> "ScoringJob":
        return TypeAdapter(cls).validate_json(file.read_bytes())


@dataclass(slots=True)
class Scored:
    """What one contender did, a value a row; empty where it was not asked."""

    answers: list[str] = field(default_factory=list)
    """On the first `max_rows` held-out rows."""
    nats: list[float] = field(default_factory=list)
    """Cross-entropy of the reference answer, a token, on every held-out row."""
    tokens: list[int] = field(default_factory=list)
    """Of the reference answers."""
    margins: list[float] = field(default_factory=list)
    """For pairs: log-likelihood of the chosen answer above the rejected one's, in nats."""
    general_nats: list[float] = field(default_factory=list)
    """Cross-entropy of general texts, a token."""
    general_tokens: list[int] = field(default_factory=list)
    """Of the general texts."""
    general_right: list[bool] = field(default_factory=list)
    """Whether the likeliest choice of a general question was the right one."""
    suites: dict[str, list[float]] = field(default_factory=dict)
    """By suite, the value of its metric for each question."""


@dataclass(frozen=True, slots=True)
class ScoredAll:
    """Every contender on the same rows."""

    ids: list[str]
    labels: list[str | None]
    references: list[str]
    """The answers that the held-out rows hold."""
    contenders: dict[str, Scored]

    def save(self, folder: Path) -> None:
        (folder / RESULT_FILE).write_text(json.dumps(asdict(self), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ScoredAll":
        return TypeAdapter(cls).validate_json((folder / RESULT_FILE).read_bytes())
