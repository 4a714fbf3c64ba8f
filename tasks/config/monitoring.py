"""The configuration of a watch over what people ask and get: one file under conf/monitor/. Imports nothing heavy."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from tasks.config.fields import Name, Share, Strict

Kind = Literal["release", "index", "adapter", "prompt"]


class MonitorConfig(Strict):
    """Compare the newest answers of a release with earlier ones, and look whether what it stands on is still fresh."""

    name: Name
    """Name of the watch, and of its experiment in MLflow."""
    description: str = ""
    """What it is for."""
    release: Name
    """The release that is watched: its answers by their traces, and the parts of its live version."""
    experiment: str = Field("", max_length=200)
    """The MLflow experiment that holds the traces; `answers-` and the name of the release, if empty."""
    reference_from: datetime | None = None
    """When the reference window begins; with the oldest trace, if empty. Set it anew when a change is there to stay."""
    reference: int = Field(500, ge=100, le=2000)
    """Answers in the reference window. Weekdays differ, so let them span a week at least."""
    window: int = Field(200, ge=50, le=1000)
    """Newest answers that are compared with them. A smaller window sees a strong change sooner and a weak one never."""
    false_alarms: float = Field(0.05, ge=0.01, le=0.5)
    """Chance of any false alarm over `horizon` runs: so much for the questions, and as much for the series together."""
    horizon: int = Field(20, ge=1, le=100)
    """Runs in a row over which that holds."""
    min_separation: float = Field(0.55, ge=0.5, le=1)
    """Least chance that a new question looks newer than an earlier one to count as drift; 0.5 says they are alike."""
    min_points: Share = 0.05
    """Least change of a share, such as that of refusals, to count."""
    min_change: float = Field(0.1, ge=0, le=100)
    """Least change of a median or quantile, as a share of what it was, to count."""
    hosted_model: str = ""
    """The model of `prices` by which tokens are compared as what an answer costs; as tokens read and written, if
    empty."""
    prices: str = "prices.yaml"
    """File of prices under conf/."""
    max_source_days: float = Field(2, gt=0, le=3650)
    """A source that was not listed without an error for so long is stale."""
    max_unchanged_days: float = Field(0, ge=0, le=3650)
    """A source of which no document changed for so long is stale; 0 for never."""
    max_live_days: dict[Kind, float] = Field({"release": 90, "adapter": 180})
    """Oldest that a live version may get, by its kind: release, index, adapter or prompt."""
    ask_hub: bool = True
    """Ask the model hub whether base model and embedder are there as they were; without it, look only at files here."""
