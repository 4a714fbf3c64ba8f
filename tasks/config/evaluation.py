"""The configuration of an evaluation: one file under conf/suites/answers/. Imports nothing heavy."""

from typing import Annotated

from pydantic import Field

from tasks.config.fields import Name, Share, Strict

Release = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}@(champion|candidate|previous|[0-9]+)$")]


class AnswersConfig(Strict):
    """Ask one or several releases the same questions, and score retrieval, generation and the whole apart."""

    name: Name
    """Name of the suite, and of its experiment in MLflow."""
    description: str = ""
    """What it is for."""
    questions: str
    """Golden queries (jsonl); those with `answers` are also scored by what is said."""
    releases: tuple[Release, ...] = Field(min_length=1, max_length=10)
    """The release that is judged, such as helpdesk@candidate, and those beside it."""
    floors: dict[str, Share] = Field({})
    """Lowest acceptable value of the first release by score, such as right: 0.8."""
    max_loss: dict[str, Share] = Field({})
    """By score, the loss of the first release against each other one that is tolerated."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of intervals, and of what counts as a loss."""
    worst: int = Field(10, ge=0, le=100)
    """Questions answered wrongly that the report shows."""
