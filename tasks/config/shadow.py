"""The configuration of a comparison by replay: one file under conf/shadow/. Imports nothing heavy."""

from pydantic import Field

from tasks.config.evaluation import Release
from tasks.config.fields import Name, Share, Strict


class ShadowConfig(Strict):
    """Ask two releases again what people asked the service, pair by pair, until it is clear which verdict holds."""

    name: Name
    """Name of the comparison, and of its experiment in MLflow."""
    description: str = ""
    """What it is for."""
    champion: Release
    """The release that is to be kept to, such as helpdesk@champion."""
    candidate: Release
    """The release that is compared with it, such as helpdesk@candidate."""
    questions: str = ""
    """Golden queries (jsonl) to ask where nothing has been recorded yet; the recorded traces, if empty."""
    experiment: str = Field("", max_length=200)
    """The MLflow experiment that holds the traces; `answers-` and the name of the champion's release, if empty."""
    days: float = Field(7, gt=0, le=3650)
    """Traces as old as that are asked again; older ones are not."""
    max_pairs: int = Field(500, ge=1, le=100_000)
    """Most questions that are asked; the newest ones, in order of time."""
    max_loss: float = Field(0.05, ge=0, lt=1)
    """Mean loss of an answer's worth, between 0 and 1, that is tolerated. Answers that are all alike are found to be no
    worse after some 6 pairs divided by this."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """How sure the verdict must be, however often one looks."""
    similar: Share = 0.5
    """Answers agree if they cite the same documents and share so much of their words (token F1)."""
    worst: int = Field(10, ge=0, le=100)
    """Pairs that disagree most, which the report shows."""
