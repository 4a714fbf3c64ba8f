"""Judges a candidate on live traffic and keeps the verdict: in MLflow, and in Prefect where its server is there.

Prefect is imported only when a verdict is kept, so that the service starts quickly.
"""

import os
from functools import partial

from tasks.answering.service.live import LiveRelease
from tasks.answering.service.trial import Both, Contest, Mode, One, Thumb, Trial
from tasks.config.servers import reach
from tasks.config.service import ServiceConfig, TrialConfig
from tasks.config.settings import Home
from tasks.evaluation.pairs import Pair, Question, Reply
from tasks.evaluation.sequential import ConfidenceSequence, PairedTest, UnpairedTest
from tasks.evaluation.statistics import Estimate
from tasks.records import Outcome
from tasks.registry.connection import MlflowClient
from tasks.registry.runs import CANDIDATE_TAG, CHAMPION_TAG, DECISION_TAG, finish, has_run, log, start_run
from tasks.releases import open_proven, target_of

NOTHING_KNOWN = Question("", "")
"""Nobody has said yet what is right: an answer is worth what its sources hold of it."""
SIMILAR = 0.5
LOOK_EVERY = 10


def open_trial(live: LiveRelease, config: ServiceConfig, home: Home, client: MlflowClient) -> Trial | None:
    """The trial that the settings ask for, not started; None where they ask for none."""
    settings = config.canary if config.canary.share else config.shadow
    if not settings.share:
        return None
    mode: Mode = "canary" if config.canary.share else "shadow"
    return Trial(
        mode,
        settings,
        live,
        candidate=partial(_candidate, client, live.name, mode),
        load=partial(open_proven, client, live.name, home=home),
        compare=partial(Paired if mode == "shadow" else Unpaired, settings),
        judged=partial(_judged, client, mode),
        keep=partial(_keep, client, mode, settings),
        seconds=config.limits.seconds,
        poll_seconds=config.poll_seconds,
        retry_seconds=config.retry_seconds,
    )


def _candidate(client: MlflowClient, name: str, mode: Mode) -> int | None:
    """The version that waits. Nobody is answered by it while the release is held; a copy does no harm."""
    target = target_of(client, name)
    return None if mode == "canary" and target.held else target.candidate


class Paired:
    """Of a shadow: both answer the same questions, and what an answer is worth is compared pair by pair."""

    def __init__(self, config: TrialConfig) -> None:
        self._test = PairedTest(config.max_loss, config.confidence, config.max_pairs)
        self._config = config
        self._sums: dict[str, float] = {}

    @property
    def outcome(self) -> Outcome:
        return self._test.outcome

    @property
    def stopped(self) -> bool:
        return self._test.stopped

    def take(self, observed: Both | One | Thumb) -> None:
        assert isinstance(observed, Both)
        pair = Pair(NOTHING_KNOWN, Reply(observed.champion), Reply(observed.candidate))
        self._test.add(pair.difference)
        seen: dict[str, float] = {"agree": pair.agrees(SIMILAR)}
        for side, reply in (("champion", pair.champion), ("candidate", pair.candidate)):
            seen |= {f"{side}_refused": reply.refused, f"{side}_cites": bool(reply.documents)}
            seen |= {f"{side}_failed": reply.answer is None, f"{side}_seconds": reply.seconds}
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in seen.items()}

    def facts(self) -> dict[str, float]:
        count = self._test.differences.count
        means = {name: total / count for name, total in self._sums.items()}
        return {"pairs": count, **_numbers("difference", self._test.differences.interval()), **means}

    def say(self) -> str:
        return f"worth of an answer {_said(self._test.differences.interval(), self._config)} pairs"


class Unpaired:
    """Of a canary: each answers other questions, so shares are compared: answers that cite, and thumbs that are up.

    Worse is a candidate that certainly loses more than is tolerated by either; no worse is one that certainly does not
    by the answers. Each of the two has half of the error. One in ten answers is looked at the whole for, which is as
    right and costs less.
    """

    def __init__(self, config: TrialConfig) -> None:
        confidence = (1 + config.confidence) / 2
        self._cites, self._likes = (UnpairedTest(config.max_loss, confidence) for _ in range(2))
        self._config = config
        self._failed = self._taken = 0
        self.outcome: Outcome = "undecided"

    @property
    def stopped(self) -> bool:
        return self.outcome != "undecided" or self._cites.candidate.count >= self._config.max_pairs

    def take(self, observed: Both | One | Thumb) -> None:
        assert not isinstance(observed, Both)
        if isinstance(observed, Thumb):
            _side(self._likes, observed.by_candidate).add(float(observed.up))
        else:
            answer = observed.answer
            self._failed += observed.by_candidate and answer is None
            _side(self._cites, observed.by_candidate).add(float(bool(answer and answer.cited)))
        self._taken += 1
        if self._taken % LOOK_EVERY == 0 or self.stopped:
            self._look()

    def _look(self) -> None:
        by_answers, by_thumbs = self._cites.outcome, self._likes.outcome
        self.outcome = "worse" if "worse" in (by_answers, by_thumbs) else by_answers

    def facts(self) -> dict[str, float]:
        found: dict[str, float] = {"candidate_failed": self._failed}
        for name, test in (("cites", self._cites), ("liked", self._likes)):
            for side, sequence in (("champion", test.champion), ("candidate", test.candidate)):
                if sequence.count:
                    found |= _numbers(f"{side}_{name}", sequence.interval())
                found[f"{side}_{name}_of"] = sequence.count
        return found

    def say(self) -> str:
        return (
            f"share of answers that cite {_said(self._cites.difference, self._config)} answers; "
            f"share of thumbs that are up {_said(self._likes.difference, self._config)} thumbs"
        )


def _side(test: UnpairedTest, by_candidate: bool) -> ConfidenceSequence:
    return test.candidate if by_candidate else test.champion


def _numbers(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _said(found: Estimate, config: TrialConfig) -> str:
    mean = f"{found.mean:+.3f} " if found.mean == found.mean else ""
    return f"{mean}({found.low:+.3f} to {found.high:+.3f}, tolerated -{config.max_loss:.3f}), after {found.count}"


def _judged(client: MlflowClient, mode: Mode, champion: str, candidate: str) -> bool:
    """A verdict stands until its run is deleted in MLflow: then the two are compared once more."""
    tags = {CHAMPION_TAG: champion, CANDIDATE_TAG: candidate}
    return has_run(client, _experiment(mode, candidate), tags)


def _keep(client: MlflowClient, mode: Mode, config: TrialConfig, contest: Contest) -> None:
    comparison = contest.comparison
    name = contest.candidate.partition("@")[0]
    tags = {
        DECISION_TAG: comparison.outcome,
        CHAMPION_TAG: contest.champion,
        CANDIDATE_TAG: contest.candidate,
        "tandem.reason": comparison.say(),
    }
    run = start_run(client, _experiment(mode, contest.candidate), f"{mode} {contest.candidate}", name)
    log(client, run, params=config.model_dump(mode="json"), metrics=comparison.facts(), tags=tags)
    finish(client, run)
    _publish(mode, name, contest, run)


def _experiment(mode: Mode, candidate: str) -> str:
    return f"live-{mode}-{candidate.partition('@')[0]}"


def _publish(mode: Mode, name: str, contest: Contest, run: str) -> None:
    """In the Prefect UI, where there is a server; the verdict in MLflow stands without it."""
    url = os.environ.get("PREFECT_API_URL", "")
    try:
        reach(url)
    except OSError:
        return
    if not url:
        return
    from prefect import get_client
    from prefect.client.schemas.actions import ArtifactCreate
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from tasks.progress import artifact_key
    from tasks.report import markdown_table

    comparison = contest.comparison
    facts = [[what, f"{value:.4g}"] for what, value in comparison.facts().items()]
    report = (
        f"# {contest.candidate} as {mode} beside {contest.champion}: {comparison.outcome}\n\n"
        f"{comparison.say()}.\n\n{markdown_table(['what', 'value'], facts)}\n\nMLflow: run `{run}`\n"
    )
    key = artifact_key(f"live-{mode}", name)
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as server:
        server.create_artifact(
            ArtifactCreate(key=key, type="markdown", data=report, description=f"{name}: {comparison.outcome}")
        )
