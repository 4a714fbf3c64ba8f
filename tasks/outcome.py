"""What became of a run, as the state that it ends in. Prefect's page shows the state's name, and nowhere its message.

A run that was held or rejected did its work, so its state is of the type Completed; only its name says what it came to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, TypeVar, cast

from prefect.states import Completed

from tasks.records import (
    Advised,
    Curated,
    Diagnosed,
    Evaluated,
    Finetune,
    Housekeeping,
    Monitored,
    Night,
    Released,
    Shadowed,
)
from tasks.telling import tell, warn

Done = Night | Finetune | Released | Evaluated | Shadowed | Advised | Curated | Monitored | Housekeeping | Diagnosed
Result = TypeVar("Result")
Ended = TypeVar("Ended", bound=Done)
HELD, REJECTED = "Held", "Rejected"
"""What automations wait for; the reason follows in the name."""
NAMES = {
    "hold": HELD,
    "reject": REJECTED,
    "unchanged": "Nothing changed",
    "passed": "Passed",
    "failed": REJECTED,
    "worse": "Worse",
    "no worse": "No worse",
    "undecided": "Undecided",
    "new versions": "New versions",
    "waits": "Waits for decisions",
    "nothing new": "Nothing new",
}
"""By decision, where that says it all."""
REASON_IN_NAME = 70
"""Characters of the first reason in the name of a state."""
LONGEST_LIST = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """A state's name and message."""

    name: str
    message: str


def ended(done: Ended, promote: str = "auto") -> Ended:
    """End the flow with this result, and tell what it came to; who called the flow in Python gets the result.

    `promote` is what the configuration does with a version that passes.
    """
    outcome = outcome_of(done, promote)
    for line in _story(done):
        tell(line)
    for line in _warnings(done):
        warn(line)
    tell(outcome.name)
    return end_as(outcome, done)


def end_as(outcome: Outcome, result: Result) -> Result:
    """End the flow in a state of this name that holds the result."""
    return cast(Result, Completed(name=outcome.name, message=outcome.message, data=result))


def outcome_of(done: Done, promote: str = "auto") -> Outcome:
    """What became of a run, and the first reason for it."""
    match done:
        case Night() | Finetune() | Released() if done.decision == "promote":
            return _passed(done, promote)
        case Monitored():
            new = [each.sentence for each in done.found if not each.known]
            told = [*new, *(each.sentence for each in done.found), "Nothing is new."]
            return Outcome(_counted(len(done.found), "finding") if done.found else "Quiet", told[0])
        case Housekeeping():
            wrong = _counted(len(done.troubles), "trouble") if done.troubles else "In order"
            return Outcome(wrong, done.troubles[0].what if done.troubles else _kept_house(done))
        case Diagnosed():
            told = [*done.fixes.values(), "No answer fails."]
            return Outcome(f"{done.failed} of {done.asked} answers fail", told[0])
        case Advised():
            return Outcome(f"Advises {done.decision}", done.reasons[0])
    name, reason = NAMES[done.decision], next(iter(done.reasons), "")
    if name in (HELD, REJECTED):
        name = f"{name}: {shorten(reason, REASON_IN_NAME, placeholder=' …')}"
    return Outcome(name, reason)


def _passed(done: Night | Finetune | Released, promote: str) -> Outcome:
    """A version that passed the gate is live, or waits for a person, or the configuration keeps it from going live."""
    reason = done.reasons[0]
    if done.live == done.version:
        return Outcome(f"Promoted v{done.version}", reason)
    name = "Awaits approval" if promote == "ask" else "Passed"
    return Outcome(f"{name} v{done.version}", f"{reason} It is not live: `promote` is {promote}.")


def _kept_house(done: Housekeeping) -> str:
    count = _counted(len(done.removals), "kind") + " of things kept no longer"
    return f"Removed: {count}." if done.applied else f"Nothing was changed; would remove: {count}."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _story(done: Done) -> Iterator[str]:
    """Counts, scores and the verdict with its reasons, a line each."""
    counts: dict[str, int] = getattr(done, "counts", {})
    if counts:
        yield ", ".join(f"{what}: {count:,}" for what, count in counts.items())
    yield from _scores(done)
    if isinstance(done, Housekeeping):
        verb = "removed" if done.applied else "would go"
        yield from (f"{verb}: {each.count:,} {each.kind}, {each.what}: {each.why}" for each in done.removals)
        yield from done.mended
    yield from getattr(done, "reasons", ())


def _scores(done: Done) -> Iterator[str]:
    scores: dict[str, Any] = {}
    match done:
        case Night():
            scores = {"candidate": done.scores, "champion": done.champion_scores}
        case Finetune() | Released() | Evaluated() | Shadowed() | Monitored():
            scores = dict(done.scores)
    for who, of in scores.items():
        if of:
            yield f"scores of {who}: " + ", ".join(f"{name} {value:.4g}" for name, value in of.items())


def _warnings(done: Done) -> Iterator[str]:
    """What a person should look at."""
    match done:
        case Night():
            set_aside = [f"set aside: {problem.document}: {problem.reason}" for problem in done.quarantined]
            yield from set_aside[:LONGEST_LIST]
            if len(set_aside) > LONGEST_LIST:
                yield f"and {len(set_aside) - LONGEST_LIST} more files set aside: the report has them"
        case Monitored():
            yield from (f"{each.sentence} To do: {each.remedy}" for each in done.found)
            yield from done.notes
        case Housekeeping():
            yield from (f"{each.what} To do: {each.remedy}" for each in done.troubles)
        case Diagnosed():
            yield from (f"{cause}: {done.causes.get(cause, 0)}: {fix}" for cause, fix in done.fixes.items())
            yield from done.notes
        case Advised():
            yield from done.warnings
