"""What people see first of a version on MLflow's registry page: verdict, score, what it is made of, and when."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tasks.config.settings import Home
from tasks.evaluation.scores import CANDIDATE, CHAMPION
from tasks.records import Finetune, Night, Released

LONGEST = 5000
"""Characters of a description that MLflow keeps."""
RESULTS = {"promote": "passed the gate", "hold": "held for a person to decide", "reject": "rejected"}


@dataclass(frozen=True, slots=True)
class Headline:
    """A version in a line. The names of its tags come before those of Tandem's own."""

    decision: str
    metric: str
    score: float | None
    before: float | None
    """The score of the version that was live; None where there was none."""
    made_of: str

    @property
    def result(self) -> str:
        return RESULTS[self.decision]

    @property
    def compared(self) -> str:
        """The score beside the one before; empty where nothing was scored."""
        if self.score is None:
            return ""
        before = "the first" if self.before is None else f"{self.before:.3f} before"
        return f"{self.metric} {self.score:.3f} ({before})"

    def tags(self) -> dict[str, str]:
        told = {"result": self.result, "score": self.compared, "made of": self.made_of, "made on": today()}
        return {name: value for name, value in told.items() if value}

    def describe(self, report: str) -> str:
        """The line, and below it the report, as far as MLflow keeps it."""
        first = ". ".join(filter(None, (self.result.capitalize(), self.compared, self.made_of, today())))
        return f"{first}.\n\n{report}"[:LONGEST]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what if number == 1 else what + 's'}"


def today() -> str:
    return datetime.now(UTC).astimezone().date().isoformat()


def of_night(night: Night, documents: int, metric: str) -> Headline:
    passages = night.counts.get("passages in the index", 0)
    now, before = night.scores.get(metric), night.champion_scores.get(metric)
    made_of = f"{_count(documents, 'document')}, {_count(passages, 'passage')}"
    return Headline(night.decision, metric, now, before, made_of)


def of_finetune(done: Finetune, metric: str, dataset: str) -> Headline:
    return Headline(done.decision, metric, *_beside(done.scores, metric), f"{done.method} on {dataset}")


def of_release(done: Released, metric: str) -> Headline:
    return Headline(done.decision, metric, *_beside(done.scores, metric), ", ".join(filter(None, done.parts.values())))


def _beside(scores: Mapping[str, Mapping[str, float]], metric: str) -> tuple[float | None, float | None]:
    return scores.get(CANDIDATE, {}).get(metric), scores.get(CHAMPION, {}).get(metric)


def page_of(name: str, number: int | None, home: Home) -> str:
    """The address of a version's own page in MLflow; empty where there is no server or no version."""
    if not number or not home.tracking_uri.startswith("http"):
        return ""
    return f"{home.tracking_uri.rstrip('/')}/#/models/{name}/versions/{number}"
