"""Drafts rows from what people said of answers, and from answers that a diagnosis found to be of the wrong form."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Any

from prefect import task

from tasks.answering.assistant import Assistant
from tasks.answering.citations import read_sentences, write_sentence
from tasks.answering.filters import redact, screen_passages
from tasks.answering.prompting import fill
from tasks.answering.routing import turns_alone
from tasks.answering.service.tracing import RELEASE_TAG, TENANT_TAG
from tasks.config.curation import CurateConfig
from tasks.config.settings import Home, find_home
from tasks.errors import TandemError
from tasks.evaluation.golden import document_of
from tasks.evaluation.texts import plain, share_held
from tasks.index.search import Filters
from tasks.records import DataKind, Draft, Passage, Sentence
from tasks.registry.connection import connect
from tasks.registry.runs import finished_runs, read_table
from tasks.registry.traces import Recorded
from tasks.releases import open_reading
from tasks.replay import days_ago, recorded_of
from tasks.schemas import parse

NO_QUESTION = "its trace holds no question: set `tracing.texts` of the service to questions"
NO_ANSWER = "its trace holds no answer to reject: set `tracing.texts` of the service to answers"
NO_RELEASE = "its release does not open any more"
NOT_FOUND = "what it cites is not found any more"
NO_HOLDER = "no passage holds the correction"
WRONG_FORM = "form"
"""The cause, in a diagnosis, of an answer whose facts are right."""

Drafted = Draft | str
"""A row, or why there is none."""


@dataclass(frozen=True)
class Use:
    """An answer that the release gave, and what is known of it."""

    question: str
    tenant: str
    release: str
    """As ``name@number``."""
    answer: str
    trace: str
    alone: bool = False
    cited: tuple[str, ...] = ()


@task(name="draft", task_run_name="draft {config.name}")
def draft(config: CurateConfig) -> list[Drafted]:
    """Rows of all that was said, the newest first, and then of what was diagnosed."""
    home = find_home()
    desk = Desk(config.min_support, home)
    experiment = config.experiment or f"answers-{config.release}"
    recorded = [
        one
        for one in recorded_of(experiment, config.release, days_ago(config.days), home)
        if one.correction or one.thumb is not None
    ]
    with_question = [one for one in recorded if one.inputs.get("question")]
    drafted: list[Drafted] = [NO_QUESTION] * (len(recorded) - len(with_question))
    for one in with_question:
        drafted += _of_feedback(one, desk)
    for liked, disliked in _pairs(with_question):
        drafted += desk.pair("thumbs", _use(liked), _use(liked).answer, _use(disliked))
    for row in _diagnosed(config, home):
        drafted += _of_diagnosis(row, desk)
    return drafted


class Desk:
    """Writes rows as the releases themselves would read them; each release is opened once."""

    def __init__(self, min_support: float, home: Home) -> None:
        self._min_support = min_support
        self._open = lru_cache(maxsize=8)(lambda pinned: open_reading(pinned, home))

    def example(self, source: Any, use: Use, right: str) -> Iterator[Drafted]:
        """The right answer to what the release read."""
        yield self._row("sft", source, use, right)

    def pair(self, source: Any, use: Use, right: str, rejected: Use) -> Iterator[Drafted]:
        """The right answer and another one to the same question."""
        if not rejected.answer:
            yield NO_ANSWER
        elif plain(rejected.answer) != plain(right):
            yield self._row("dpo", source, use, right, rejected)

    def golden_of_correction(self, use: Use, right: str) -> Iterator[Drafted]:
        """The question with the document that holds the right answer."""
        try:
            assistant = self._open(use.release)
        except TandemError:
            yield NO_RELEASE
            return
        passages = [
            passage
            for text in (use.question, right)
            for passage in assistant.search(text, Filters(tenant=use.tenant or None)).passages
        ]
        holder = _holder(right, passages, self._min_support)
        yield NO_HOLDER if holder is None else golden("correction", use, [passages[holder].document])

    def _row(self, kind: DataKind, source: Any, use: Use, right: str, rejected: Use | None = None) -> Drafted:
        try:
            read = Reading(self._open(use.release), use)
        except TandemError:
            return NO_RELEASE
        if not set(use.cited) <= {passage.id for passage in read.found}:
            return NOT_FOUND
        answer = cite(right, read.passages, self._min_support)
        other = rejected.answer if rejected else ""
        if kinds := read.private_in(f"{answer}\n{other}"):
            return f"an answer holds private data ({', '.join(kinds)}), which cannot be taken out of it cleanly"
        return make_draft(
            kind,
            source,
            question=read.question,
            answer=answer,
            rejected=other,
            prompt=tuple(read.turns),
            tenant=use.tenant,
            topic=topic_of(answer, read.passages),
            release=use.release,
            traces=_traces(use, rejected),
        )


class Reading:
    """What a release read of a question. The version never changes, so that it finds what it found then."""

    def __init__(self, assistant: Assistant, use: Use) -> None:
        self._assistant, self._use = assistant, use
        self._allowed = assistant.policy.filters.allowed
        self.question = redact(use.question, self._allowed)[0]

    @cached_property
    def found(self) -> Sequence[Passage]:
        if self._use.alone:
            return ()
        return self._assistant.search(self._use.question, Filters(tenant=self._use.tenant or None)).passages

    @cached_property
    def passages(self) -> Sequence[Passage]:
        """As the model read them, and without private data, whatever the release let through."""
        policy = self._assistant.policy
        filters = policy.filters.model_copy(update={"answer": "redact"})
        return screen_passages(self.found, policy.passages, filters)[0]

    @property
    def turns(self) -> list[dict[str, str]]:
        if self._use.alone:
            return turns_alone(self.question, self._assistant.policy.routing)
        return fill(self._assistant.prompt, self.question, self.passages)

    def private_in(self, text: str) -> tuple[str, ...]:
        """The kinds of private data that may not be said."""
        return redact(text, self._allowed)[1]


def make_draft(kind: DataKind, source: Any, **values: Any) -> Draft:
    """A row whose id is a hash over what it teaches."""
    taught = [kind, *(values.get(key) for key in ("question", "tenant", "answer", "rejected", "relevant"))]
    return Draft(sha256(json.dumps(taught).encode("utf-8", "surrogatepass")).hexdigest()[:12], kind, source, **values)


def golden(source: Any, use: Use, documents: Iterable[str]) -> Draft:
    """A golden query."""
    relevant = tuple(dict.fromkeys(documents))
    values = {"question": redact(use.question)[0], "tenant": use.tenant, "relevant": relevant, "topic": relevant[0]}
    return make_draft("golden", source, **values, release=use.release, traces=_traces(use), side="held_out")


def cite(text: str, passages: Sequence[Passage], least: float) -> str:
    """The text with marks where a sentence stands in a passage, which people leave out; as it is, if it has some.

    `least` is the share of a sentence's words that must stand there.
    """
    if isinstance(parse(text), dict | list) or any(each.cited for each in read_sentences(text, len(passages))):
        return text
    marked, place = "", 0
    for sentence in read_sentences(text, 0):
        end = text.index(sentence.text, place) + len(sentence.text)
        holder = _holder(sentence.text, passages, least)
        mark = "" if holder is None else write_sentence(Sentence("", (holder + 1,)))
        marked, place = marked + text[place:end] + mark, end
    return marked + text[place:]


def topic_of(answer: str, passages: Sequence[Passage]) -> str:
    """The document of the first passage that the answer cites."""
    cited = [number for sentence in read_sentences(answer, len(passages)) for number in sentence.cited]
    return passages[cited[0] - 1].document if cited else ""


def _of_feedback(one: Recorded, desk: Desk) -> Iterator[Drafted]:
    use = _use(one)
    if one.correction:
        yield from desk.example("correction", use, one.correction)
        yield from desk.pair("correction", use, one.correction, use)
        yield from desk.golden_of_correction(use, one.correction)
    elif one.thumb and use.cited:
        yield golden("thumbs", use, map(document_of, use.cited))


def _of_diagnosis(row: Mapping[str, Any], desk: Desk) -> Iterator[Drafted]:
    use = Use(row["question"], row["tenant"] or "", row["release"], row["answer"] or "", row["trace_id"] or "")
    yield from desk.example("diagnosis", use, row["expected"])
    yield from desk.pair("diagnosis", use, row["expected"], use)


def _diagnosed(config: CurateConfig, home: Home) -> list[dict[str, Any]]:
    """Right facts in the wrong form, where the right form is known."""
    client = connect(home)
    runs = finished_runs(client, f"diagnosis-{config.diagnosis}", limit=1) if config.diagnosis else []
    # one in which nothing fails has no table
    rows = [row for run in runs if run.metrics["failed"] for row in read_table(client, run.run_id, "diagnosis.json")]
    return [row for row in rows if row["cause"] == WRONG_FORM and row["expected"] and row["question"]]


def _pairs(recorded: Sequence[Recorded]) -> Iterator[tuple[Recorded, Recorded]]:
    """Of the same question of the same tenant, the newest answer that was liked and the newest that was not."""
    said: dict[tuple[str, str], dict[bool, Recorded]] = defaultdict(dict)
    for one in recorded:
        if one.thumb is not None and not one.correction and one.outputs.get("answer"):
            use = _use(one)
            said[plain(use.question), use.tenant].setdefault(one.thumb, one)
    for of in said.values():
        if len(of) == 2:
            yield of[True], of[False]


def _use(one: Recorded) -> Use:
    return Use(
        question=one.inputs["question"],
        tenant=one.tags.get(TENANT_TAG, ""),
        release=one.tags[RELEASE_TAG],
        answer=one.outputs.get("answer", ""),
        trace=one.trace_id,
        alone=bool(one.outputs.get("alone")),
        cited=tuple(one.outputs.get("cited", ())),
    )


def _traces(*uses: Use | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(use.trace for use in uses if use and use.trace))


def _holder(text: str, passages: Sequence[Passage], least: float) -> int | None:
    """The place of the passage that holds most of the words."""
    shares = [share_held(text, [passage.text]) for passage in passages]
    best = max(shares, default=0.0)
    return shares.index(best) if shares and best >= least else None
