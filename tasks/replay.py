"""Asks two releases again what people asked the service, until a sequential test knows enough."""

import time
from collections.abc import Iterator, Sequence

from prefect import task

from tasks.answering.assistant import Assistant
from tasks.answering.service.tracing import RELEASE_TAG, TENANT_TAG
from tasks.config.settings import Home, find_home
from tasks.config.shadow import ShadowConfig
from tasks.errors import ConfigError, ModelError, TandemError
from tasks.evaluation.golden import document_of, load_golden
from tasks.evaluation.pairs import Pair, Question, Reply
from tasks.evaluation.sequential import PairedTest
from tasks.progress import progress
from tasks.records import Outcome
from tasks.registry.connection import connect
from tasks.registry.traces import Recorded, read_traces
from tasks.releases import open_release

DAY = 86_400


def questions_of(config: ShadowConfig, home: Home) -> list[Question]:
    """What was asked, in order of time; a question that was asked often is asked once, for it would tell nothing new.

    Raises ConfigError where there is nothing to ask, and says which setting keeps what is needed.
    """
    if config.questions:
        found = [Question(query.id, query.query, query.tenant, query) for query in load_golden(config.questions)]
        return found[: config.max_pairs]
    release = config.champion.partition("@")[0]
    experiment = config.experiment or f"answers-{release}"
    newest: dict[tuple[str, str | None], Question] = {}
    traces = without = 0
    for recorded in recorded_of(experiment, release, days_ago(config.days), home):
        traces += 1
        if not recorded.inputs.get("question"):
            without += 1
            continue
        question = _question(recorded)
        key = (question.text, question.tenant)
        if key not in newest and len(newest) == config.max_pairs:
            break
        if key not in newest or _has_feedback(question) > _has_feedback(newest[key]):
            newest[key] = question
    if not newest:
        raise ConfigError(_nothing(experiment, release, config.days, traces, without))
    return list(newest.values())[::-1]


@task(name="replay", task_run_name="replay {champion} {candidate}")
def replay(
    config: ShadowConfig, champion: str, candidate: str, questions: Sequence[Question]
) -> tuple[list[Pair], Outcome]:
    """Pairs of answers in the order of the questions, and what the test found: after the last pair it had stopped.

    The two take turns in who is asked first, so that what the first one warms does not favour one of them.

    Raises:
        TandemError: a release does not open, or neither answers any question.
    """
    home = find_home()
    test = PairedTest(config.max_loss, config.confidence, config.max_pairs)
    one, two = _open(champion, home), _open(candidate, home)
    pairs: list[Pair] = []
    with progress("replay", config.name, len(questions)) as advance:
        for question in questions:
            pair = _ask(one, two, question, len(pairs) % 2 == 0)
            pairs.append(pair)
            advance(1)
            if pair.counts:
                test.add(pair.difference)
            if test.stopped:
                break
    if not any(pair.counts for pair in pairs):
        raise ModelError(
            f"neither {champion} nor {candidate} answered any of {len(pairs)} questions: {pairs[0].candidate.error}"
        )
    return pairs, test.outcome


def _ask(champion: Assistant, candidate: Assistant, question: Question, champion_first: bool) -> Pair:
    if champion_first:
        before = _reply(champion, question)
        return Pair(question, before, _reply(candidate, question))
    now = _reply(candidate, question)
    return Pair(question, _reply(champion, question), now)


def _reply(assistant: Assistant, question: Question) -> Reply:
    try:
        return Reply(assistant.answer(question.text, question.tenant))
    except TandemError as error:
        return Reply(None, str(error))


def _open(pinned: str, home: Home) -> Assistant:
    name, _, number = pinned.partition("@")
    assistant = open_release(name, int(number), home)
    assistant.reader.warm()
    return assistant


def days_ago(days: float) -> float:
    """In seconds since the epoch."""
    return time.time() - days * DAY


def recorded_of(
    experiment: str, release: str, since: float, home: Home, newest_first: bool = True
) -> Iterator[Recorded]:
    """The traces of a release's answers in the experiment, from a time in seconds since the epoch on."""
    for recorded in read_traces(connect(home), experiment, since, newest_first):
        if recorded.tags.get(RELEASE_TAG, "").partition("@")[0] == release:
            yield recorded


def _question(recorded: Recorded) -> Question:
    cited = frozenset(map(document_of, recorded.outputs.get("cited", ())))
    return Question(
        id=recorded.trace_id,
        text=recorded.inputs["question"],
        tenant=recorded.tags.get(TENANT_TAG) or None,
        correction=recorded.correction,
        liked=cited if recorded.thumb else None,
        disliked=recorded.thumb is False,
        keeps_answers="answer" in recorded.outputs,
    )


def _has_feedback(question: Question) -> bool:
    return bool(question.correction or question.disliked) or question.liked is not None


def _nothing(experiment: str, release: str, days: float, traces: int, without: int) -> str:
    golden = "or name golden queries under `questions`"
    if without:
        return (
            f"none of the {traces} traces of {release} in the MLflow experiment {experiment} holds its question, so "
            f"nothing can be asked again: set `tracing: {{texts: questions}}` in conf/service/{release}.yaml, which "
            f"keeps the questions from now on, {golden}"
        )
    return (
        f"the MLflow experiment {experiment} holds no trace of {release} of the last {days:g} days: let "
        f"`tandem serve {release}` answer first, with `tracing: {{enabled: true}}` in its settings, {golden}"
    )
