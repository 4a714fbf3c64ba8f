"""Finds out why answers failed: looks up what is known about each, and asks again what might have gone otherwise."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from prefect import task

from tasks.answering.assistant import SPARE, Assistant
from tasks.answering.conflicts import contradict, find_conflict
from tasks.answering.extractive import ExtractiveGenerator
from tasks.answering.filters import screen_passages
from tasks.answering.sentences import content_words, split, without_frame
from tasks.answering.service.tracing import TENANT_TAG
from tasks.config.answering import FiltersConfig, PolicyConfig
from tasks.config.diagnosis import DiagnoseConfig, FormConfig
from tasks.config.settings import Home, find_home
from tasks.errors import ConfigError
from tasks.evaluation.answers import load_schema
from tasks.evaluation.diagnosis import Diagnosis, Evidence, Failure, Finding, find_cause
from tasks.evaluation.golden import GoldenQuery, document_of, load_golden
from tasks.evaluation.releases import is_relevant
from tasks.evaluation.stages import Row, is_right, said, support
from tasks.evaluation.texts import exact_match, token_f1
from tasks.index.embedding import Embedder
from tasks.index.search import Filters
from tasks.lookup import REACH, Library, Places, Wanted, text_of
from tasks.progress import progress
from tasks.records import Answer, Cause, Passage
from tasks.registry.traces import Recorded
from tasks.releases import open_release
from tasks.replay import days_ago, recorded_of
from tasks.schemas import NOTHING, parse

UNFILTERED = FiltersConfig(question="off", answer="off", orders=False, prompt=False)
BLOCKING = ("question", "schema", "answer")
"""Where a filter that takes something out can leave nothing to say."""
QUOTED = 3
"""A golden answer of fewer words that tell is looked for as it stands."""
SAME_TOPIC = 0.4
"""Questions are on one topic whose mean cosine to each other is that much."""
SAME = 0.9
"""Two answers that share so much of their words (token F1) are one."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What a release is asked."""

    suite: tuple[GoldenQuery, ...]
    told: dict[str, Recorded]
    """By id, traces whose answers people disliked or corrected."""
    notes: tuple[str, ...]
    """What was left out, and why."""

    @property
    def all(self) -> list[GoldenQuery]:
        """Those of the suite and those of the traces, the correction of a trace as its answer."""
        return [*self.suite, *map(_query_of, self.told.values())]


def questions_of(config: DiagnoseConfig, home: Home) -> Questions:
    """The golden queries, and the newest trace of each question that somebody disliked or corrected.

    Raises ConfigError where there are neither.
    """
    suite = tuple(load_golden(config.questions)) if config.questions else ()
    name = config.release.partition("@")[0]
    experiment = config.experiment or f"answers-{name}"
    told: dict[tuple[str, str], Recorded] = {}
    liked = without = 0
    if config.days:
        for trace in recorded_of(experiment, name, days_ago(config.days), home):
            if trace.thumb is not False and not trace.correction:
                liked += 1
            elif not (question := trace.inputs.get("question")):
                without += 1
            elif len(told) < config.max_traces:
                told.setdefault((question, trace.tags.get(TENANT_TAG, "")), trace)
    notes = [f"{without} traces with feedback hold no question and cannot be diagnosed: {_keep(name)}."] * bool(without)
    if liked:
        notes.append(f"{liked} traces of {experiment} without a thumb down or a correction were not asked again.")
    if not suite and not told:
        raise ConfigError(
            f"there is nothing to diagnose: no trace in the MLflow experiment {experiment} of the last "
            f"{config.days:g} days has both its question and a thumb down or a correction"
            + (f" ({without} have feedback and no question: {_keep(name)})" if without else "")
            + "; name golden queries under questions, or raise days"
        )
    return Questions(suite, {trace.trace_id: trace for trace in told.values()}, tuple(notes))


def failures_of(
    config: DiagnoseConfig, questions: Questions, rows: Sequence[Row]
) -> tuple[list[Failure], tuple[str, ...]]:
    """The rows whose answers fail today, and a note on those that a person disliked and that do not any more."""
    failures, mended = [], 0
    for row in rows:
        trace = questions.told.get(row.query.id)
        if trace is None:
            if not row.right or broken_form(row.whole, config.form):
                failures.append(Failure(row, "suite"))
        elif _fails_again(row, trace, config):
            failures.append(Failure(row, "trace", "answer" in trace.outputs))
        else:
            mended += 1
    notes = [f"{mended} answers that people disliked or corrected are other ones today, and are left out."]
    return failures, tuple(notes * bool(mended))


@task(name="diagnose", task_run_name="diagnose {pinned}")
def find_causes(config: DiagnoseConfig, pinned: str, rows: Sequence[Row], failures: Sequence[Failure]) -> Diagnosis:
    """The cause of each failure, in their order; `rows` are all that was asked.

    Raises a TandemError where the release does not open.
    """
    name, _, number = pinned.partition("@")
    assistant = open_release(name, int(number), find_home())
    with progress("sort", name, len(failures)) as advance:
        findings = tuple(explain(failures, assistant, config, advance))
    missing = [finding for finding in findings if finding.rule.cause == Cause.NOT_IN_SOURCES]
    suite = tuple(row for row in rows if row.query.relevant)
    return Diagnosis(suite, findings, _by_topic(missing, assistant.reader.embedder))


def explain(
    failures: Sequence[Failure],
    assistant: Assistant,
    config: DiagnoseConfig,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[Finding]:
    """The cause of each failure of a release that is open; `advance` is told of each."""
    if not failures:
        return
    library = Library(assistant.reader)
    for failure in failures:
        finding = find_cause(gather(failure, assistant, library, config), config)
        yield replace(finding, tried=_try_fixes(finding, assistant, config)) if config.try_fixes else finding
        advance(1)


def gather(failure: Failure, assistant: Assistant, library: Library, config: DiagnoseConfig) -> Evidence:
    """Everything that the rules read about one failure."""
    row, query = failure.row, failure.row.query
    answer, wanted = row.whole, _wanted(query, config)
    relevant = tuple(dict.fromkeys(map(document_of, query.relevant)))
    places = library.find(wanted, relevant, config.about)
    seen = [passage for passage in places.whole if _may_see(query, passage)]
    whole = {passage.id for passage in seen}
    best = max(seen, key=lambda passage: wanted.covered_by(text_of([passage])), default=None)
    return Evidence(
        failure=failure,
        broken_form=broken_form(answer, config.form),
        facts=wanted.told_by(said(answer)) if query.answers else is_right(answer, query),
        declined=answer.refused or any(re.search(each, answer.text, re.I) for each in assistant.policy.routing.unsure),
        blocked=answer.refused and any(each.where in BLOCKING for each in answer.filtered),
        right_unfiltered=bool(answer.filtered) and _right_without_filters(failure, assistant, config),
        held=_ids(places.whole),
        seen=_ids(seen),
        split=_ids(each for run in places.pieces for each in run),
        split_seen=_ids(each for run in places.pieces for each in run if _may_see(query, each)),
        documents=tuple(filter(library.has, relevant)),
        set_aside=next(filter(None, map(library.why_missing, relevant)), ""),
        read=_ids(each for each in answer.passages if _is_read(each, whole, relevant, wanted)),
        cited=_ids(answer.cited),
        rank=next((place for place, each in enumerate(row.found, start=1) if each.id in whole), 0),
        covered=wanted.covered_by(text_of([best])) if best else 0.0,
        together=wanted.covered_by(text_of(library.around(best))) if best else 0.0,
        right_together=bool(best and len(library.around(best)) > 1) and _right_together(failure, assistant, config),
        rival=_rival(failure, wanted, seen),
        elsewhere=_elsewhere(answer, places, query),
        confidence_everywhere=0.0 if failure.known or not answer.refused else _confidence(query.query, assistant),
        threshold=assistant.grounding.threshold,
        support=support(answer),
    )


def broken_form(answer: Answer, form: FormConfig) -> str:
    """What is wrong with the form of an answer; empty where nothing is, or where it is a refusal."""
    if answer.refused:
        return ""
    text = said(answer)
    if form.pattern and not re.fullmatch(form.pattern, text, re.DOTALL):
        return f"it does not match {form.pattern}"
    if form.max_words and (words := len(text.split())) > form.max_words:
        return f"it has {words} words, and may have {form.max_words}"
    if form.json_schema:
        value = parse(text)
        if value is NOTHING:
            return "it is not JSON"
        if not load_schema(form.json_schema).is_valid(value):
            return f"it does not fit {form.json_schema}"
    return ""


def _query_of(trace: Recorded) -> GoldenQuery:
    answers = (trace.correction,) if trace.correction else ()
    tenant = trace.tags.get(TENANT_TAG) or None
    return GoldenQuery(trace.inputs["question"], (), answers, id=trace.trace_id, tenant=tenant)


def _fails_again(row: Row, trace: Recorded, config: DiagnoseConfig) -> bool:
    """Whether today's answer is still what a person disliked, or lacks what the correction says."""
    answer, text = row.whole, said(row.whole)
    if trace.correction and not _wanted(row.query, config).told_by(text):
        return True
    if trace.correction and exact_match(text, [trace.correction]):
        return False
    if recorded := trace.outputs.get("answer"):
        return token_f1(answer.text, [recorded]) >= SAME
    cited = set(map(document_of, trace.outputs.get("cited", ())))
    return answer.refused == trace.outputs.get("refused") and {each.document for each in answer.cited} == cited


def _wanted(query: GoldenQuery, config: DiagnoseConfig) -> Wanted:
    """A correction is a sentence in a person's own words, a golden answer is quoted from a document."""
    if query.relevant:
        return Wanted(query.query, query.answers, config.same_facts, QUOTED)
    return Wanted(query.query, tuple(map(without_frame, query.answers)), config.same_facts)


def _may_see(query: GoldenQuery, passage: Passage) -> bool:
    return query.tenant is None or passage.tenant == query.tenant


def _is_read(passage: Passage, whole: set[str], relevant: Sequence[str], wanted: Wanted) -> bool:
    """Whether a passage that was read, maybe with its neighbours, holds the answer."""
    return passage.id in whole or (
        bool(wanted.answers) and passage.document in relevant and wanted.stands_in(passage.text)
    )


def _elsewhere(answer: Answer, places: Places, query: GoldenQuery) -> str:
    """The first cited passage that holds the answer, where none of the cited ones is named as relevant."""
    held = {passage.id for passage in places.whole}
    if not query.relevant or any(is_relevant(passage, query) for passage in answer.cited):
        return ""
    return next((passage.id for passage in answer.cited if passage.id in held), "")


def _rival(failure: Failure, wanted: Wanted, seen: Sequence[Passage]) -> str:
    """A passage that was read and that contradicts the expected answer where it stands; empty where none does.

    Where nobody said what is right, two that were read and contradict each other.
    """
    answer, asked = failure.row.whole, content_words(wanted.question)
    if not failure.known:
        conflict = find_conflict(wanted.question, answer.passages)
        return answer.passages[conflict[1].cited[0] - 1].id if conflict else ""
    told = [(passage, sentence) for passage in seen for sentence in _sentences(passage) if wanted.stands_in(sentence)]
    for passage in answer.passages:
        for sentence in _sentences(passage):
            for own, statement in told:
                differs = own.document != passage.document and not wanted.stands_in(sentence)
                if differs and contradict(statement, sentence, asked):
                    return passage.id
    return ""


def _sentences(passage: Passage) -> tuple[str, ...]:
    return split(passage.text, passage.language or "en")


def _right_without_filters(failure: Failure, assistant: Assistant, config: DiagnoseConfig) -> bool:
    return _is_right(failure, _asked_with(assistant, failure.row, filters=UNFILTERED), config)


def _right_together(failure: Failure, assistant: Assistant, config: DiagnoseConfig) -> bool:
    retrieval = assistant.policy.retrieval
    joined = retrieval.model_copy(update={"neighbours": retrieval.neighbours + REACH})
    return _is_right(failure, _asked_with(assistant, failure.row, retrieval=joined), config)


def _asked_with(assistant: Assistant, row: Row, **changes: object) -> Answer:
    """What the release would answer with another policy."""
    policy = assistant.policy.model_copy(update=changes)
    other = replace(assistant, policy=policy)
    if "generator" in changes:
        other = replace(other, generator=ExtractiveGenerator(policy.generator.sentences))
    if set(changes) == {"filters"}:  # what is found is the same
        return other.answer_from(row.query.query, row.found[: SPARE * policy.passages])
    found = other.search(row.query.query, Filters(tenant=row.query.tenant)).passages
    return other.answer_from(row.query.query, found)


def _is_right(failure: Failure, answer: Answer, config: DiagnoseConfig) -> bool:
    """As far as anybody said what is right; else whether it answers at all."""
    query = failure.row.query
    if broken_form(answer, config.form):
        return False
    if query.relevant:
        return is_right(answer, query)
    return _wanted(query, config).told_by(said(answer)) if query.answers else not answer.refused


def _confidence(question: str, assistant: Assistant) -> float:
    """The probability that what the whole index has answers a question, whoever may see it."""
    found = assistant.search(question).passages
    passages, _ = screen_passages(found, assistant.policy.passages, assistant.policy.filters)
    return assistant.grounding.probability(question, passages)


def _try_fixes(finding: Finding, assistant: Assistant, config: DiagnoseConfig) -> tuple[tuple[str, bool], ...]:
    """The settings that might mend such a failure, and whether the answer is right with them."""
    failure = finding.failure
    if finding.rule.cause == Cause.WRONGLY_REFUSED and failure.row.whole.refused:
        lenient = replace(assistant, grounding=replace(assistant.grounding, threshold=0.0))
        answer = lenient.answer_from(failure.row.query.query, failure.row.whole.passages)
        return (("a lower threshold", _is_right(failure, answer, config)),)
    return tuple(
        (name, _is_right(failure, _asked_with(assistant, failure.row, **changes), config))
        for name, changes in _settings_for(finding, assistant.policy).items()
    )


def _settings_for(finding: Finding, policy: PolicyConfig) -> dict[str, dict[str, object]]:
    retrieval = policy.retrieval
    if finding.rule.cause == Cause.CONTRADICTED and not policy.conflicts:
        return {"conflicts: true": {"conflicts": True}}
    if finding.rule.cause == Cause.NOT_USED and policy.generator.kind == "extractive":
        more = 2 * policy.generator.sentences
        return {f"generator.sentences: {more}": {"generator": policy.generator.model_copy(update={"sentences": more})}}
    if finding.rule.detail == "chunking":
        wider = retrieval.neighbours + 1
        return {f"retrieval.neighbours: {wider}": {"retrieval": retrieval.model_copy(update={"neighbours": wider})}}
    if finding.rule.detail == "vocabulary":
        more = 2 * policy.passages
        settings: dict[str, dict[str, object]] = {f"passages: {more}": {"passages": more}}
        if retrieval.expansion == "nothing":
            expanded = retrieval.model_copy(update={"expansion": "feedback"})
            settings["retrieval.expansion: feedback"] = {"retrieval": expanded}
        return settings
    return {}


def _by_topic(findings: Sequence[Finding], embedder: Embedder) -> tuple[tuple[Finding, ...], ...]:
    """Failures whose questions mean much the same, the most frequent topic first."""
    if len(findings) < 2:
        return tuple((finding,) for finding in findings)
    from sklearn.cluster import AgglomerativeClustering

    vectors = embedder.embed_queries([finding.failure.row.query.query for finding in findings])
    clustering = AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=1 - SAME_TOPIC
    )
    topics: dict[int, list[Finding]] = {}
    for topic, finding in zip(clustering.fit_predict(vectors), findings, strict=True):
        topics.setdefault(int(topic), []).append(finding)
    return tuple(tuple(of) for of in sorted(topics.values(), key=len, reverse=True))


def _ids(passages: Iterable[Passage]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(passage.id for passage in passages))


def _keep(release: str) -> str:
    return f"set `tracing: {{texts: questions}}` in conf/service/{release}.yaml"
