"""The configuration of the tiny base model: which text it reads, how large it is, how long it learns."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from tasks.config.fields import Share, Strict


class TextConfig(Strict):
    """Text for the base model to read."""

    paths: tuple[str, ...] = Field(min_length=1)
    """Files or globs, from the folder in which the run works."""
    kind: Literal["markdown", "questions", "labels"]
    """Pages; JSON lines with question and answer; or CSV with text and category."""
    licence: str
    """Licence of the text, for the model's card."""


class BaseModelBuildConfig(Strict):
    """Make the small base model that tests and the demo use where no model hub can be reached."""

    folder: Path = Path("data/models/tiny")
    """Where the model is written."""
    texts: tuple[TextConfig, ...] = Field(min_length=1)
    """Text to read; the exercises are made by the project itself."""
    text_share: Share = 0.25
    """Share of the tokens that are text; the rest are exercises."""
    vocabulary: int = Field(4096, ge=512, le=65_536)
    """Tokens of the vocabulary."""
    width: int = Field(256, ge=64, le=4096, multiple_of=64)
    """Width of the hidden states; a head is 64 wide."""
    layers: int = Field(4, ge=1, le=64)
    """Number of layers."""
    context: int = Field(1024, ge=128, le=32_768)
    """Longest input in tokens."""
    steps: int = Field(2000, ge=1)
    """Steps of the optimizer."""
    replicas: int = Field(2, ge=1, le=64)
    """Copies of the model that learn side by side, one for each core."""
    batch_tokens: int = Field(6144, ge=64)
    """Tokens of a step, padding included."""
    learning_rate: float = Field(0.01, gt=0, le=1)
    """Highest learning rate of the matrices (Muon); embeddings and norms (AdamW) learn with a third of it."""
    prompt_weight: Share = 0.2
    """Weight of the tokens of a question in the loss; those of an answer count 1."""
    seed: int = Field(0, ge=0, le=2**31)
    """Of the exercises, the first weights and the order."""
