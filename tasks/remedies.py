"""The cheapest fix for each cause: what it takes, what was measured of it, and the command that does it."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.config import stored
from tasks.config.answering import PolicyConfig
from tasks.evaluation.diagnosis import Diagnosis, Finding
from tasks.evaluation.golden import document_of
from tasks.evaluation.stages import Row, is_right
from tasks.records import IndexManifest, ReleaseManifest

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Setup:
    """What a release is made of, as far as fixes change it."""

    release: str
    index: str
    policy: PolicyConfig
    chunking: dict[str, Any]
    passages: int

    @classmethod
    def of(cls, release: ReleaseManifest, index: IndexManifest) -> "Setup":
        policy = stored.policy_of(release)
        return cls(release.release, index.index, policy, index.chunking, index.passages)

    @property
    def make_release(self) -> str:
        return f"tandem release conf/release/{self.release}.yaml"

    @property
    def make_index(self) -> str:
        return f"tandem reindex conf/index/{self.index}.yaml"

    @property
    def curate(self) -> str:
        return f"tandem curate conf/curate/{self.release}.yaml"


@dataclass(frozen=True, slots=True)
class Fix:
    """What mends failures of one cause."""

    sentence: str
    takes: str
    """The work, and what was measured of it."""
    command: str
    """Ready to paste, once what `takes` says is edited."""
    deployment: str
    """The deployments in the Prefect UI that do the same, as ``flow/deployment``."""


Remedy = Callable[[Sequence[Finding], Diagnosis, Setup], Fix]


def fix_for(kind: str, diagnosis: Diagnosis, setup: Setup) -> Fix:
    """The cheapest fix for the failures of a cause and detail, of which there are some."""
    findings = [finding for finding in diagnosis.findings if finding.kind == kind]
    return REMEDIES[kind](findings, diagnosis, setup)


@dataclass(frozen=True, slots=True)
class Lower:
    """A lower threshold of refusal, and what it costs."""

    threshold: float
    answered: int
    """Wrongly refused questions that are answered, and rightly."""
    precision: tuple[float, float]
    """Share of the refusals that are right, on the suite's questions with and without their documents: now, then."""
    slips: int
    """Questions that are refused without their documents now, and would be answered."""
    without: int
    """Of so many that are refused now."""


def lower_threshold(findings: Sequence[Finding], rows: Sequence[Row]) -> Lower | None:
    """The threshold that answers half of the wrongly refused questions that it can mend; None where it mends none."""
    mended = [each for each in findings if any(right for _, right in each.tried)]
    mendable = sorted((each.failure.row.whole.confidence for each in mended), reverse=True)
    if not mendable:
        return None
    threshold = mendable[(len(mendable) - 1) // 2]
    wrongly = [row.whole.confidence for row in rows if row.whole.refused]
    rightly = [row.without.confidence for row in rows if row.without.refused]

    def precision(below: float) -> float:
        wrong, right = (sum(value < below for value in values) for values in (wrongly, rightly))
        return right / (wrong + right) if wrong + right else 1.0

    return Lower(
        threshold=threshold,
        answered=sum(value >= threshold for value in mendable),
        precision=(precision(float("inf")), precision(threshold)),
        slips=sum(value >= threshold for value in rightly),
        without=len(rightly),
    )


def _add_documents(findings: Sequence[Finding], diagnosis: Diagnosis, setup: Setup) -> Fix:
    topics = len(diagnosis.topics)
    return Fix(
        "Add documents that answer what was asked.",
        f"Pages on {_count(topics, 'topic')}, listed below; index and release are then made anew.",
        f"{setup.make_index} && {setup.make_release}",
        "reindex/reindex, then release/release",
    )


def _open_to_tenant(findings: Sequence[Finding], _: Diagnosis, setup: Setup) -> Fix:
    documents = _most(document_of(each) for finding in findings for each in finding.evidence.held[:1])
    named = f": {documents}" if documents else ""
    return Fix(
        "Let the tenant that asks see what answers it, if it may.",
        f"Whether it may is for a person to decide. If so, the `tenant` of the source in "
        f"conf/index/{setup.index}.yaml, or a copy in a source of the tenant's own{named}.",
        f"{setup.make_index} && {setup.make_release}",
        "reindex/reindex, then release/release",
    )


def _join_passages(findings: Sequence[Finding], _: Diagnosis, setup: Setup) -> Fix:
    most, overlap = setup.chunking["max_tokens"], setup.chunking["overlap_tokens"]
    if tried := _best_tried(findings):
        setting, mended = tried
        return Fix(
            f"Read passages together with those beside them: `{setting}` in the release's policy.",
            f"Measured: it mends {mended} of {len(findings)}. Nothing is embedded anew; an answer reads more words.",
            setup.make_release,
            "release/release",
        )
    return Fix(
        f"Cut longer passages: `chunking: {{max_tokens: {2 * most}, overlap_tokens: {max(overlap, most // 4)}}}` "
        f"in conf/index/{setup.index}.yaml, where it is {most} and {overlap} now.",
        f"All {setup.passages:,} passages are embedded anew.",
        f"{setup.make_index} && {setup.make_release}",
        "reindex/reindex, then release/release",
    )


def _find_by_other_words(findings: Sequence[Finding], _: Diagnosis, setup: Setup) -> Fix:
    if tried := _best_tried(findings):
        setting, mended = tried
        return Fix(
            f"Look for more: `{setting}` in the release's policy.",
            f"Measured: it mends {mended} of {len(findings)}. A search costs some more milliseconds, "
            "or an answer more tokens; the gate says whether other questions lose by it.",
            setup.make_release,
            "release/release",
        )
    ranked = sum(bool(finding.evidence.rank) for finding in findings)
    return Fix(
        f"Rerank what is found (`search.reranker` in conf/index/{setup.index}.yaml), or write the words people use "
        "into the pages.",
        f"{ranked} of {len(findings)} are among the first 50 and a reranker can lift them; the others need the words.",
        f"{setup.make_index} && {setup.make_release}",
        "reindex/reindex, then release/release",
    )


def _teach_to_read(findings: Sequence[Finding], _: Diagnosis, setup: Setup) -> Fix:
    alone = sum(is_right(each.failure.row.given, each.failure.row.query) for each in findings)
    distracted = f"{alone} of {len(findings)} are right from the relevant documents alone: others distract."
    if setup.policy.generator.kind == "extractive":
        if tried := _best_tried(findings):
            setting, mended = tried
            measured = f"Measured: `{setting}` mends {mended} of {len(findings)}, and answers are longer. "
        else:
            measured = ""
        return Fix(
            "Quote more sentences, or let a language model write the answer: `generator` in the release's policy.",
            f"{measured}{distracted}",
            setup.make_release,
            "release/release",
        )
    return Fix(
        "Teach the model to answer from what it reads, by SFT on passages with the right answers.",
        f"{_count(len(findings), 'row')} from these failures, which a person approves. {distracted}",
        f"{setup.curate}",
        "curate/curate, then finetune-sft/finetune-sft",
    )


def _settle(findings: Sequence[Finding], _: Diagnosis, setup: Setup) -> Fix:
    rivals = _most(document_of(finding.evidence.rival) for finding in findings)
    shown = "" if setup.policy.conflicts else " Until then `conflicts: true` in the policy shows both statements."
    return Fix(
        "Correct or remove the page that is wrong.",
        f"A person decides which is right. Pages that say otherwise: {rivals}.{shown}",
        f"{setup.make_index} && {setup.make_release}",
        "reindex/reindex, then release/release",
    )


def _teach_form(findings: Sequence[Finding], _: Diagnosis, setup: Setup) -> Fix:
    if setup.policy.generator.kind == "extractive":
        return Fix(
            "Let a language model write the answer: quoted sentences have the form of their documents.",
            "A policy whose generator is transformers or endpoint, and the form in its prompt (conf/prompts/).",
            setup.make_release,
            "release/release",
        )
    return Fix(
        "Write the form into the prompt; where that is not enough, teach it by SFT or DPO.",
        f"A sentence in conf/prompts/. Else {_count(len(findings), 'row')} for SFT or DPO from these failures, by "
        f"`{setup.curate}`.",
        setup.make_release,
        "release/release; curate/curate, then finetune-sft/finetune-sft",
    )


def _refuse_less(findings: Sequence[Finding], diagnosis: Diagnosis, setup: Setup) -> Fix:
    now = setup.policy.grounding.min_precision
    found = lower_threshold(findings, diagnosis.rows)
    if found is None:
        tried = any(finding.tried for finding in findings)
        return Fix(
            "Refuse less: raise `grounding.min_precision` in the release's policy.",
            f"It is {now:g} now. "
            + ("But of these, none would be answered rightly." if tried else "What that costs was not measured."),
            setup.make_release,
            "release/release",
        )
    before, after = found.precision
    return Fix(
        "Refuse less: raise `grounding.min_precision` in the release's policy.",
        f"It is {now:g} now. A threshold of {found.threshold:.3f} instead of {findings[0].evidence.threshold:.3f} "
        f"answers {found.answered} of {len(findings)} rightly, and also {found.slips} of {found.without} questions "
        f"that are rightly refused where their documents are missing; {before:.0%} of the refusals are right now, "
        f"{after:.0%} then.",
        setup.make_release,
        "release/release",
    )


def _allow(findings: Sequence[Finding], _: Diagnosis, setup: Setup) -> Fix:
    acted = _most(
        f"{each.what} {each.action} in the {'passage' if '#' in each.where else each.where}"
        for finding in findings
        for each in finding.failure.row.whole.filtered
    )
    return Fix(
        "Let through what may be said, in the policy: `filters.allowed`, or `redact` for `withhold` and `refuse`.",
        f"A person decides what may be said. Filtered: {acted}. The guardrail suite is tried before it goes live.",
        setup.make_release,
        "release/release",
    )


def _name_document(findings: Sequence[Finding], _: Diagnosis, setup: Setup) -> Fix:
    documents = _most(document_of(finding.evidence.elsewhere) for finding in findings)
    return Fix(
        "Add the document to `relevant` of the golden query, if it answers it.",
        f"A line each in the golden file. Documents: {documents}.",
        setup.make_release,
        "release/release",
    )


def _ask_people(findings: Sequence[Finding], _: Diagnosis, setup: Setup) -> Fix:
    return Fix(
        "Ask for a correction where a thumb goes down: without one nobody knows what was wrong.",
        f"{_count(len(findings), 'trace')} to read, by the ids below.",
        f"mlflow server  # experiment answers-{setup.release}, the traces with a thumb down",
        "none",
    )


def _best_tried(findings: Sequence[Finding]) -> tuple[str, int] | None:
    """The setting that mends most, and how many; None where none that was tried mends any."""
    mended = Counter(setting for finding in findings for setting, right in finding.tried if right)
    return mended.most_common(1)[0] if mended else None


def _most(names: Iterable[str]) -> str:
    counts = Counter(filter(None, names)).most_common()
    more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    return ", ".join(f"{name} ({count})" for name, count in counts[:SHOWN]) + more


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


REMEDIES: dict[str, Remedy] = {
    "guardrail": _allow,
    "not_in_sources": _add_documents,
    "not_retrieved: filter": _open_to_tenant,
    "not_retrieved: chunking": _join_passages,
    "unexplained: label": _name_document,
    "form": _teach_form,
    "contradicted": _settle,
    "not_retrieved: vocabulary": _find_by_other_words,
    "wrongly_refused": _refuse_less,
    "not_used": _teach_to_read,
    "unexplained": _ask_people,
}
