"""The configuration of the maintenance: conf/maintain.yaml. Imports nothing heavy."""

from pydantic import Field

from tasks.config.fields import Strict


class MaintainConfig(Strict):
    """What stays on the disk, and for how long; what is live, previous, waiting, kept or held always does."""

    apply: bool = False
    """Remove and mend; off, it only says what it would do."""
    depth: int = Field(10, ge=1, le=1000)
    """Of each model that many of the newest versions stay, and as many of the latest that were live."""
    days: float = Field(30, ge=0, le=3650)
    """Versions younger than that stay too, and a table that no version names as long after its last change."""
    trace_days: float = Field(90, gt=0, le=3650)
    """Traces of answers are kept that long, and what people said of them."""
    checkpoint_days: float = Field(14, ge=8, le=3650)
    """How long the checkpoint of a training stays that ended without an adapter; a crashed one may be started again for
    7 days."""
    cache_days: float = Field(30, ge=0, le=3650)
    """How long vectors and converted texts stay that no version uses; a killed night goes on from them."""
    scratch_days: float = Field(7, ge=1, le=3650)
    """How long files stay that a killed run left, counted from the last one written among them."""
    log_mb: float = Field(50, gt=0, le=100_000)
    """A log of `tandem up` larger than that keeps its last half of it."""
    free_share: float = Field(0.25, gt=0, le=1)
    """An SQLite database is compacted where more than that share of its file is free."""
