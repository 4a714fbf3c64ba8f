"""Why an answer failed: rules in a fixed order over what was looked up about it; the first one that fits decides.

The order goes from what takes an answer away whatever was found (a filter), over what keeps the fact from being found
(it is nowhere, it is not to be seen, it is in pieces), to what was made of it. So the cause is the first thing that has
to be mended: nothing further down can work before it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tasks.config.diagnosis import DiagnoseConfig
from tasks.evaluation.stages import Row
from tasks.evaluation.statistics import Estimate
from tasks.records import Cause

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Source = Literal["suite", "trace"]


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that failed, by a golden query or by what a person said of it."""

    row: Row
    source: Source
    keeps_answers: bool = True
    """Whether the text of the answer may be kept."""

    @property
    def known(self) -> bool:
        """Whether anybody said what is right."""
        return bool(self.row.query.answers or self.row.query.relevant)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was looked up about a failed answer. Passages are told by their ids."""

    failure: Failure
    broken_form: str = ""
    """What is wrong with the form of the answer; empty where nothing is, or none is asked for."""
    facts: bool = False
    """The answer has the facts of the expected one."""
    declined: bool = False
    """It was refused, or the language model says that it does not know."""
    blocked: bool = False
    """A filter refused the question or took the whole answer."""
    right_unfiltered: bool = False
    """A filter acted, and without filters the answer would be right."""
    held: tuple[str, ...] = ()
    """Passages of the whole index that hold the expected answer."""
    seen: tuple[str, ...] = ()
    """Those of them that the tenant may see."""
    split: tuple[str, ...] = ()
    """Passages that hold it only together with a neighbour."""
    split_seen: tuple[str, ...] = ()
    """Those of them that the tenant may see."""
    documents: tuple[str, ...] = ()
    """The documents named as relevant that the index has."""
    set_aside: str = ""
    """Why the index has no passages of a document that its sources have; empty where that is not so."""
    read: tuple[str, ...] = ()
    """Passages among those that the answer was made from that hold the expected answer."""
    cited: tuple[str, ...] = ()
    """Passages that the answer cites."""
    rank: int = 0
    """The place of the first passage of `seen` among those found; 0 where it is not among the first 50."""
    covered: float = 0.0
    """The share of the question's words in the best passage of `seen`."""
    together: float = 0.0
    """The same of that passage with its neighbours."""
    right_together: bool = False
    """The answer is right where each passage is read together with its neighbours."""
    rival: str = ""
    """A passage that says otherwise than the expected answer, or than another one; empty where none does."""
    elsewhere: str = ""
    """A cited passage that holds the answer, though nobody named it as relevant."""
    confidence_everywhere: float = 0.0
    """Of a refused question: the probability that what is found without the tenant's filter answers it."""
    threshold: float = 0.0
    """The probability from which the release answers."""
    support: float = 0.0
    """The share of the answer's words that stand in the passages it cites."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A cause, when it is that, and what shows it."""

    cause: Cause
    detail: str
    sentence: str
    """When it fits, for a person."""
    fits: Callable[[Evidence, DiagnoseConfig], bool]
    shown: Callable[[Evidence], str]
    """The evidence in words; no text of a passage, which another tenant may own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The cause of a failure, by which rule, and what shows it."""

    evidence: Evidence
    rule: Rule
    tried: tuple[tuple[str, bool], ...] = ()
    """Settings that the question was asked again with, and whether the answer is right with them."""

    @property
    def failure(self) -> Failure:
        return self.evidence.failure

    @property
    def kind(self) -> str:
        """Cause and detail."""
        return kind_of(self.rule)


def kind_of(rule: Rule) -> str:
    """Cause and detail of a rule, such as ``not_retrieved: chunking``."""
    return f"{rule.cause}: {rule.detail}" if rule.detail else str(rule.cause)


def find_cause(evidence: Evidence, config: DiagnoseConfig) -> Finding:
    """The first rule that fits. The last one always does."""
    return Finding(evidence, next(rule for rule in RULES if rule.fits(evidence, config)))


def count_causes(findings: Sequence[Finding]) -> dict[str, int]:
    """How many failures have which cause and detail; those without any are 0."""
    counts = Counter(finding.kind for finding in findings)
    return {kind: counts[kind] for kind in dict.fromkeys(map(kind_of, RULES))}


def share_of(count: int, total: int, confidence: float) -> Estimate:
    """A share with its interval by Wilson (1927), which keeps its confidence where counts are small."""
    from scipy.stats import binomtest

    found = binomtest(count, total).proportion_ci(confidence, method="wilson")
    return Estimate(count / total, float(found.low), float(found.high), total)


def _filtered(evidence: Evidence, _: DiagnoseConfig) -> bool:
    return evidence.blocked or evidence.right_unfiltered


def _nowhere(evidence: Evidence, _: DiagnoseConfig) -> bool:
    return evidence.failure.known and not evidence.held and not evidence.split


def _not_to_be_seen(evidence: Evidence, _: DiagnoseConfig) -> bool:
    return evidence.failure.known and not evidence.seen and not evidence.split_seen


def _in_pieces(evidence: Evidence, _: DiagnoseConfig) -> bool:
    return evidence.failure.known and not evidence.seen


def _elsewhere(evidence: Evidence, _: DiagnoseConfig) -> bool:
    return evidence.facts and bool(evidence.elsewhere) and not evidence.broken_form


def _wrong_form(evidence: Evidence, _: DiagnoseConfig) -> bool:
    if not evidence.failure.known:
        return bool(evidence.broken_form)
    rests = not evidence.cited or not set(evidence.cited).isdisjoint(evidence.read)
    return evidence.facts and bool(evidence.read) and rests and not evidence.declined


def _cut_off(evidence: Evidence, config: DiagnoseConfig) -> bool:
    gains = evidence.together - evidence.covered >= config.context
    return evidence.failure.known and (evidence.right_together or gains)


def _contradicted(evidence: Evidence, _: DiagnoseConfig) -> bool:
    return bool(evidence.rival) and not evidence.declined


def _not_found(evidence: Evidence, _: DiagnoseConfig) -> bool:
    return evidence.failure.known and not evidence.read


def _refused(evidence: Evidence, _: DiagnoseConfig) -> bool:
    return evidence.failure.known and evidence.declined


def _not_used(evidence: Evidence, _: DiagnoseConfig) -> bool:
    return evidence.failure.known


def _asked_in_vain(evidence: Evidence, _: DiagnoseConfig) -> bool:
    return evidence.failure.row.whole.refused and evidence.confidence_everywhere < evidence.threshold


def _kept_from(evidence: Evidence, _: DiagnoseConfig) -> bool:
    return evidence.failure.row.whole.refused


def _unsupported(evidence: Evidence, config: DiagnoseConfig) -> bool:
    return not evidence.declined and evidence.support < config.support


def _always(_: Evidence, __: DiagnoseConfig) -> bool:
    return True


def _say_filtered(evidence: Evidence) -> str:
    found = dict.fromkeys(f"{each.what} {each.action} in {each.where}" for each in evidence.failure.row.whole.filtered)
    return "; ".join(found)


def _say_nowhere(evidence: Evidence) -> str:
    relevant = evidence.failure.row.query.relevant
    if not relevant:
        return "no passage of the index holds what the correction says"
    if not evidence.documents:
        why = f", which was set aside: {evidence.set_aside}" if evidence.set_aside else ""
        return f"the index has no {', '.join(relevant)}{why}"
    return f"{', '.join(evidence.documents)} is in the index, and does not hold the expected answer"


def _say_not_to_be_seen(evidence: Evidence) -> str:
    tenant = evidence.failure.row.query.tenant
    return f"held by {_some(evidence.held or evidence.split)}, which tenant {tenant} may not see"


def _say_in_pieces(evidence: Evidence) -> str:
    return f"only together: {', '.join(evidence.split_seen)}"


def _say_elsewhere(evidence: Evidence) -> str:
    return f"{evidence.elsewhere} holds it and is cited; the golden query names {', '.join(evidence.documents)}"


def _say_form(evidence: Evidence) -> str:
    if evidence.broken_form:
        return evidence.broken_form
    answer = evidence.failure.row.whole
    if not answer.cited:
        return "the facts are there, and no sentence says where they stand"
    if evidence.failure.source == "trace":
        return "the facts of the correction are there, in other words than a person wants"
    return "the words of the expected answer are there, and not as they are expected"


def _say_cut_off(evidence: Evidence) -> str:
    return (
        f"{_some(evidence.seen)} holds it with {evidence.covered:.0%} of the question's words, "
        f"{evidence.together:.0%} with the passages beside it"
        + ("; read together with these, the answer is right" if evidence.right_together else "")
    )


def _say_rival(evidence: Evidence) -> str:
    held = f", against {_some(evidence.seen)}" if evidence.seen else ""
    return f"{evidence.rival} says otherwise{held}"


def _say_not_found(evidence: Evidence) -> str:
    read = len(evidence.failure.row.whole.passages)
    place = f"in place {evidence.rank}, and {read} are read" if evidence.rank else "not among the first 50"
    return f"{_some(evidence.seen)} is {place}; it has {evidence.covered:.0%} of the question's words"


def _say_refused(evidence: Evidence) -> str:
    answer = evidence.failure.row.whole
    if not answer.refused:
        return f"{_some(evidence.read)} was read, and the language model said that it does not know"
    return f"{_some(evidence.read)} was read; confidence {answer.confidence:.3f}, threshold {evidence.threshold:.3f}"


def _say_not_used(evidence: Evidence) -> str:
    cited = _some(evidence.cited) if evidence.cited else "nothing"
    return f"{_some(evidence.read)} was read; the answer cites {cited}"


def _say_everywhere(evidence: Evidence) -> str:
    return f"confidence over the whole index {evidence.confidence_everywhere:.3f}, threshold {evidence.threshold:.3f}"


def _say_unsupported(evidence: Evidence) -> str:
    return f"{evidence.support:.0%} of its words stand in the passages it cites"


def _say_nothing(_: Evidence) -> str:
    return "a person disliked it and nobody said what is right: ask for a correction"


def _some(ids: Sequence[str]) -> str:
    return ids[0] + (f" and {len(ids) - 1} more" if len(ids) > 1 else "")


RULES = (
    Rule(
        Cause.GUARDRAIL,
        "",
        "A filter refused the question or took the whole answer; or one acted, and without it the answer is right.",
        _filtered,
        _say_filtered,
    ),
    Rule(
        Cause.NOT_IN_SOURCES,
        "",
        "Neither a passage of the whole index nor neighbours together hold the expected answer.",
        _nowhere,
        _say_nowhere,
    ),
    Rule(
        Cause.NOT_RETRIEVED,
        "filter",
        "The index holds the expected answer, and nothing that the tenant may see does.",
        _not_to_be_seen,
        _say_not_to_be_seen,
    ),
    Rule(
        Cause.NOT_RETRIEVED,
        "chunking",
        "Passages hold the expected answer together with their neighbours, and none does by itself.",
        _in_pieces,
        _say_in_pieces,
    ),
    Rule(
        Cause.UNEXPLAINED,
        "label",
        "The answer has the expected facts from a document that the golden query does not name: add it there.",
        _elsewhere,
        _say_elsewhere,
    ),
    Rule(
        Cause.FORM,
        "",
        "A passage with the expected answer was read and the answer has its facts, in another form than asked for.",
        _wrong_form,
        _say_form,
    ),
    Rule(
        Cause.NOT_RETRIEVED,
        "chunking",
        "With its neighbours, the passage with the expected answer has much more of the question, or is answered from.",
        _cut_off,
        _say_cut_off,
    ),
    Rule(
        Cause.CONTRADICTED,
        "",
        "A passage says otherwise in nearly the same words.",
        _contradicted,
        _say_rival,
    ),
    Rule(
        Cause.NOT_RETRIEVED,
        "vocabulary",
        "A passage with the expected answer may be seen, and the question ranks it below those that are read.",
        _not_found,
        _say_not_found,
    ),
    Rule(
        Cause.WRONGLY_REFUSED,
        "",
        "A passage with the expected answer was read, and the assistant says that it does not know.",
        _refused,
        _say_refused,
    ),
    Rule(
        Cause.NOT_USED,
        "",
        "A passage with the expected answer was read, and the answer does not rest on it.",
        _not_used,
        _say_not_used,
    ),
    Rule(
        Cause.NOT_IN_SOURCES,
        "",
        "Nobody said what is right; it was refused, and the whole index has nothing that is likely to answer it.",
        _asked_in_vain,
        _say_everywhere,
    ),
    Rule(
        Cause.NOT_RETRIEVED,
        "filter",
        "Nobody said what is right; it was refused, and without the tenant's filter something likely is found.",
        _kept_from,
        _say_everywhere,
    ),
    Rule(
        Cause.NOT_USED,
        "",
        "Nobody said what is right; the words of the answer do not stand in the passages it cites.",
        _unsupported,
        _say_unsupported,
    ),
    Rule(Cause.UNEXPLAINED, "", "No rule fits.", _always, _say_nothing),
)
"""In the order in which they are asked."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found out."""

    rows: tuple[Row, ...]
    """The suite's questions, answered rightly or not."""
    findings: tuple[Finding, ...]
    topics: tuple[tuple[Finding, ...], ...]
    """What is not in the sources, questions on the same thing together, the most frequent first."""


def plot_causes(causes: Mapping[str, int], confidence: float) -> "Figure":
    """The share of the failures that each cause has, with its interval; those that do not occur are left out."""
    from matplotlib.figure import Figure

    total = sum(causes.values())
    occurring = sorted((kind for kind in causes if causes[kind]), key=lambda kind: causes[kind])
    shares = [share_of(causes[kind], total, confidence) for kind in occurring]
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(occurring)), layout="constrained")
    axes = figure.subplots()
    ends = [[share.mean - share.low for share in shares], [share.high - share.mean for share in shares]]
    places = range(len(occurring))
    axes.barh(places, [share.mean for share in shares], xerr=ends, capsize=3, color="#1f6feb", ecolor="#57606a")
    axes.set_yticks(places, [f"{kind.replace('_', ' ')}  ({causes[kind]})" for kind in occurring])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"share of {total} failed answers, with its {confidence:.0%} interval")
    axes.set_title("Why answers fail")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
