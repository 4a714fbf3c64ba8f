"""Small frozen records that the packages and tasks hand each other. Nothing heavy is imported here."""

import logging
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from tasks.errors import StoreError

log = logging.getLogger(__name__)

MANIFEST_FORMAT = 1


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that a source lists, not yet read."""

    document: str
    """Identifies the document everywhere: ``<source name>/<path in the source>``."""
    source: str
    path: str
    revision: str
    """Changes exactly when the bytes change: ``sha256:…``, ``git:<blob id>`` or ``etag:…``."""
    size: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that gives no passages tonight, and why, in a sentence."""

    document: str
    reason: str
    revision: str = ""
    """The revision of the bytes that could not be used; empty where they were never reached."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything one source holds tonight."""

    source: str
    revision: str
    """The commit for git; a hash over all files' revisions otherwise."""
    files: tuple[SourceFile, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """What people should know of it, in sentences."""


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """What a converter made of a file: markdown-like text without its front matter."""

    text: str
    title: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    """Front matter or document properties, JSON-safe."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage: ``parsed.text[start:end] == text``."""

    text: str
    start: int
    end: int
    heading: tuple[str, ...] = ()
    """The headings above the passage, outermost first."""


@dataclass(frozen=True, slots=True)
class DocumentState:
    """What the table itself says it holds of one document."""

    document: str
    revision: str
    recipe: str
    passages: int
    stale: bool = False
    reason: str | None = None


def known_fields(record: type[Any], values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Of what was stored, that which a record has fields for; what a newer Tandem stored besides is named in the log.

    What an older Tandem did not store yet is left to the record's defaults. Raises `StoreError` where there is none.
    """
    known = {field.name: field for field in fields(record)}
    needed = [name for name, one in known.items() if one.default is MISSING and one.default_factory is MISSING]
    if missing := [name for name in needed if name not in values]:
        raise StoreError(
            f"{what} lacks {', '.join(missing)}, which every Tandem has written: it was edited or damaged; restore it, "
            "or make it anew"
        )
    if unknown := [name for name in values if name not in known]:
        log.warning("%s has fields of a newer Tandem, which are left out: %s", what, ", ".join(unknown))
    return {name: value for name, value in values.items() if name in known}


def _fields_in_format(manifest: type[Any], values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    version = f"{values.get(kind)} {values.get('tag')}"
    if (written := values.get("format", MANIFEST_FORMAT)) > MANIFEST_FORMAT:
        raise StoreError(
            f"{version} was written by a newer Tandem (format {written}, this one reads up to {MANIFEST_FORMAT}): "
            "upgrade Tandem"
        )
    return known_fields(manifest, values, f"the manifest of {version}")


def kind_of(manifest: Mapping[str, Any]) -> Literal["index", "adapter", "prompt", "release"]:
    """What a registered version is, by the keys of its manifest; a release has those of its parts as well."""
    kinds: tuple[Literal["index", "adapter", "prompt", "release"], ...] = ("release", "index", "adapter", "prompt")
    found = next((kind for kind in kinds if kind in manifest), None)
    if found is None:
        raise StoreError(
            f"a manifest names none of {', '.join(kinds)}: it was edited or damaged, or a newer Tandem wrote it; "
            "restore it, or upgrade Tandem"
        )
    return found


def number_of(tag: str) -> int:
    """The number of the version that a Lance tag stands for: 7 in ``v7``."""
    return int(tag.removeprefix("v"))


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """All that is needed to open one index version again, anywhere the table can be reached."""

    index: str
    tag: str
    """Lance tag that protects the version; the registry's version number with a ``v``."""
    uri: str
    """LanceDB database, absolute."""
    table: str
    lance_version: int
    embedder: dict[str, Any]
    """The ``EmbedderConfig`` as JSON."""
    embedder_fingerprint: str
    dimension: int
    search: dict[str, Any]
    """The ``SearchConfig`` as JSON: a version answers as it was scored."""
    chunking: dict[str, Any]
    fingerprint: str
    """Hash over everything that decides what the version holds and how it was judged."""
    corpus: str
    """Hash over every document's id and revision."""
    documents: int
    passages: int
    format: int = MANIFEST_FORMAT
    """Raised when an older Tandem could no longer read the version."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "IndexManifest":
        """Raises `StoreError` where it is in the format of a newer Tandem, or lacks a field that has no default."""
        return cls(**_fields_in_format(cls, values, "index"))


@dataclass(frozen=True, slots=True)
class AdapterManifest:
    """All that is needed to load one adapter version again, onto exactly the base model it was trained for."""

    adapter: str
    tag: str
    """The registry's version number with a ``v``."""
    method: Literal["sft", "dpo"]
    base: dict[str, Any]
    """The ``BaseModelConfig`` as JSON."""
    base_hash: str
    """Hash over the base model's weights."""
    adapter_hash: str
    """Hash over the adapter's weights."""
    dataset: str
    """Name of the data set: a file under conf/datasets/."""
    dataset_hash: str
    """Hash over the rows, those held out included."""
    parent: str
    """The adapter it went on from, as ``name@number``; empty where it began on the base model."""
    seed: int
    libraries: dict[str, str]
    """Versions that it was trained with, by package."""
    format: int = MANIFEST_FORMAT
    """Raised when an older Tandem could no longer load the version."""
    base_settings_hash: str = ""
    """Hash over the base model's configuration and code; empty in versions made before it was kept."""
    adapter_settings_hash: str = ""
    """Hash over the adapter's configuration, tokenizer and chat template; empty in versions made before it was kept."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "AdapterManifest":
        """Raises `StoreError` where it is in the format of a newer Tandem, or lacks a field that has no default."""
        return cls(**_fields_in_format(cls, values, "adapter"))


@dataclass(frozen=True, slots=True)
class Passage:
    """One search result, with the place it came from."""

    id: str
    document: str
    text: str
    score: float
    title: str | None
    heading: tuple[str, ...]
    start: int
    end: int
    tenant: str | None
    language: str | None
    date: str | None
    tags: tuple[str, ...]
    stale: bool
    parsed_key: str
    """Where the converted text of the whole document lies in the content store."""
    similarity: float | None = None
    """Cosine to the query; None where only full text was searched, or only another query found it."""
    match: float = 0.0
    """BM25 score; 0 where full text did not find it by the query itself."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What a generator wrote. A sentence ends with the numbers of the passages it rests on, such as ``[1] [3]``."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    """Tokens read and written, where a language model wrote it."""
    confidence: float | None = None
    """Geometric mean of the probabilities of the tokens written, where the model tells."""
    cut: bool = False
    """Whether it has no end, because a language model wrote as much as it may."""
    model: str = ""
    """The name by which an endpoint calls the model that wrote it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer as a language model reads it that judges it."""

    question: str
    answer: str
    passages: tuple[str, ...]
    """The texts that the answer was made from."""
    expected: str = ""
    """The right answer, where it is known."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a language model said of an answer."""

    passed: bool | None
    """None where it failed, or what it said is no verdict."""
    why: str
    """Its reason, or what went wrong."""
    model: str = ""
    """As the endpoint calls it; empty where nothing came back."""
    tokens_in: int = 0
    tokens_out: int = 0
    judge: str = ""
    """As ``name@version``; empty where there is no verdict."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an answer, without its marks."""

    text: str
    cited: tuple[int, ...]
    """Numbers, counted from 1, of the passages it rests on; none where it is ungrounded."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """What a filter took out of a question, a passage or an answer."""

    where: str
    """``question``, ``schema``, ``answer``, or the id of a passage."""
    what: str
    """The kind of secret or personal data, ``orders to the assistant`` or ``the prompt``."""
    action: Literal["redacted", "withheld", "refused"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an assistant said, what that rests on, and which versions said it."""

    question: str
    """As it was answered: without what a filter took out of it."""
    text: str
    """With marks such as ``[1]``, the numbers of passages; or JSON, where an answer was to fit a schema."""
    sentences: tuple[Sentence, ...]
    """Those of the text; none where it was refused. JSON is one, which rests on all passages."""
    passages: tuple[Passage, ...]
    """What was found, in the order of their numbers, cited or not."""
    refused: bool
    confidence: float
    """Probability that the passages answer the question; of an answer without a search, the model's own confidence."""
    versions: dict[str, str]
    """``release``, ``index``, ``adapter`` and ``prompt``, as ``name@number``; none where there is none."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By step: filters, alone, search, grounding, generation, conflicts."""
    tokens_in: int = 0
    tokens_out: int = 0
    filtered: tuple[Filtered, ...] = ()
    """What the policy's filters took out on the way."""
    alone: bool = False
    """Whether the model answered without a search."""
    conflict: tuple[Sentence, ...] = ()
    """Statements of the passages that contradict each other on what was asked; they are in a text as well, and not in
    JSON."""
    cut: bool = False
    """Whether the language model wrote as much as it may, and did not come to an end."""

    @property
    def cited(self) -> tuple[Passage, ...]:
        """The passages that any sentence rests on."""
        numbers = sorted({number for sentence in self.sentences for number in sentence.cited})
        return tuple(self.passages[number - 1] for number in numbers)


@dataclass(frozen=True, slots=True)
class Searched:
    """What a release's search found, without an answer."""

    passages: tuple[Passage, ...]
    versions: dict[str, str]
    """``release`` and ``index``, as ``name@number``."""
    seconds: dict[str, float]
    """By step: search, filters."""
    filtered: tuple[Filtered, ...] = ()
    """What the policy's filters took out of the passages."""


@dataclass(frozen=True, slots=True)
class ReleaseManifest:
    """All that is needed to answer again as a release did: its parts by number, its policy, its calibration."""

    release: str
    tag: str
    """The registry's version number with a ``v``."""
    index: str
    """As ``name@number``, like the other parts."""
    adapter: str
    """Empty where the policy's generator has none."""
    prompt: str
    policy: dict[str, Any]
    """The ``PolicyConfig`` as JSON."""
    grounding: dict[str, Any]
    """The ``Grounding`` as JSON."""
    alone_from: float | None = None
    """Least confidence with which the model answers without a search; None where every question is searched for."""
    format: int = MANIFEST_FORMAT
    """Raised when an older Tandem could no longer answer with the version."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ReleaseManifest":
        """Raises `StoreError` where it is in the format of a newer Tandem, or lacks a field that has no default."""
        return cls(**_fields_in_format(cls, values, "release"))

    @property
    def parts(self) -> dict[str, str]:
        """By kind, as ``name@number``; those that it has."""
        named = {"index": self.index, "adapter": self.adapter, "prompt": self.prompt}
        return {kind: part for kind, part in named.items() if part}


def manifest_fields(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a manifest of whatever kind and format. Raises `StoreError` where one is missing."""
    kind = kind_of(manifest)
    if kind == "prompt":
        return dict(manifest)
    record = {"index": IndexManifest, "adapter": AdapterManifest, "release": ReleaseManifest}[kind]
    return known_fields(record, manifest, f"the manifest of {manifest[kind]} {manifest.get('tag')}")


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version: of an index, an adapter, a prompt or a release."""

    name: str
    number: int
    run_id: str
    created: float
    """Seconds since the epoch."""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """One entry of the ledger: a pointer moved, or a hold set or lifted."""

    name: str
    what: Literal["champion", "candidate", "previous", "hold"]
    before: int | None
    after: int | None
    at: float
    """Seconds since the epoch."""
    by: str
    """A person, ``flow reindex``, or ``MLflow UI (found later)``."""
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decided, with the reasons as sentences for a person."""

    decision: Literal["promote", "hold", "reject"]
    reasons: tuple[str, ...]
    promote: Literal["auto", "ask", "never"] = "auto"
    """What the configuration does with a version that passes."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one night's parsing, chunking and embedding left on disk, ready to be written in one go."""

    staged: str
    """Arrow file with the new rows."""
    rows: int
    dimension: int
    rewritten: tuple[str, ...]
    """Documents whose rows are staged."""
    failed: tuple[Problem, ...]
    """Files that gave no passages tonight."""
    stale: tuple[Problem, ...]
    """Those among them whose last good passages stay."""
    embedded: int
    """Passages embedded tonight."""
    reused: int
    """Passages whose vectors were known."""
    parsed: int
    """Documents converted tonight; the others were known by their bytes."""


@dataclass(frozen=True, slots=True)
class Night:
    """What a run of the re-index did, as the flow's result and as the command's closing table."""

    index: str
    decision: Literal["unchanged", "promote", "hold", "reject"]
    reasons: tuple[str, ...]
    version: int | None = None
    """The version registered tonight, if any."""
    live: int | None = None
    """The version that is live afterwards."""
    counts: dict[str, int] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    champion_scores: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    quarantined: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """What people should know besides, in sentences."""
    golden: str = ""
    """Hash over the golden file it was scored with."""
    run_id: str = ""
    """In MLflow; empty where no version was made."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training left on disk."""

    adapter: str
    """Folder."""
    precision: Literal["bf16", "fp32"]
    """Of its weights and arithmetic."""
    steps: int
    seconds: float
    decisions: tuple[str, ...]
    """How the machine was used, and why, as sentences."""


@dataclass(frozen=True, slots=True)
class Finetune:
    """What a fine-tune did, as the flow's result and as the command's closing table."""

    adapter: str
    method: Literal["sft", "dpo"]
    decision: Literal["promote", "hold", "reject"]
    reasons: tuple[str, ...]
    version: int
    """The version registered."""
    live: int | None = None
    """The version that is live afterwards."""
    counts: dict[str, int] = field(default_factory=dict)
    decisions: tuple[str, ...] = ()
    """How the machine was used, and why, as sentences."""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """By contender, then by score."""
    seconds: dict[str, float] = field(default_factory=dict)
    run_id: str = ""
    """In MLflow."""


@dataclass(frozen=True, slots=True)
class Released:
    """What a release came to, as the flow's result and as the command's closing table."""

    release: str
    decision: Literal["unchanged", "promote", "hold", "reject"]
    reasons: tuple[str, ...]
    version: int
    """The version registered, or the newest one where nothing has changed."""
    parts: dict[str, str]
    """By kind, as ``name@number``."""
    live: int | None = None
    """The version that is live afterwards."""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """By contender, then by score."""
    seconds: dict[str, float] = field(default_factory=dict)
    run_id: str = ""
    """In MLflow."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation came to, as the flow's result and as the command's closing table."""

    suite: str
    decision: Literal["passed", "failed"]
    reasons: tuple[str, ...]
    scores: dict[str, dict[str, float]]
    """By release, as ``name@number``, then by score."""
    addresses: dict[str, dict[str, int]]
    """By release, how many questions failed where."""
    judges: dict[str, float] = field(default_factory=dict)
    """Of language models that judge: by release the answers without a verdict and the tokens; agreement with people."""
    seconds: dict[str, float] = field(default_factory=dict)
    run_id: str = ""
    """In MLflow."""


Outcome = Literal["worse", "no worse", "undecided"]
"""Of a candidate against a champion, by a sequential test."""


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What a comparison of two releases came to, as the flow's result and as the command's closing table."""

    name: str
    champion: str
    """As ``name@number``, like the candidate."""
    candidate: str
    decision: Outcome
    reasons: tuple[str, ...]
    counts: dict[str, int]
    scores: dict[str, dict[str, float]]
    """By release, then by measure."""
    difference: tuple[float, float, float]
    """Of an answer's worth, candidate minus champion: mean, and the interval that holds at any time."""
    seconds: dict[str, float] = field(default_factory=dict)
    run_id: str = ""
    """In MLflow."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the check of a data set found."""

    severity: Literal["stop", "dropped", "note"]
    """It stops the run; rows were left out; or it is only to be known."""
    sentence: str
    places: tuple[str, ...] = ()
    """Rows it is about: ``file:line`` or ``file#row``, counted from 1."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """A data set, checked and split, as files that a training reads."""

    train: Path
    """Parquet file with the rows to train on."""
    held_out: Path
    """Parquet file with the rows to score on."""
    version: str
    """Hash over the rows and their sides, whatever their order: ``sha256:…``."""
    sources: tuple[str, ...]
    """Where the rows come from, without passwords."""
    counts: dict[str, int]
    """read, malformed, train, held_out: rows; train_tokens: tokens of the rows to train on, as far as they are used."""
    findings: tuple[Finding, ...]

    @property
    def stopped(self) -> bool:
        """Whether a finding forbids to train on it."""
        return any(finding.severity == "stop" for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Measured:
    """A field of a case, as Tandem has measured it."""

    field: str
    value: float
    source: str
    """Where it stands in MLflow, and what it was made from."""
    at: float
    """When, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Advised:
    """What an advice came to, as the flow's result and as the command's closing table. Amounts are rounded."""

    name: str
    decision: Literal["retrieval", "fine-tuning", "both", "neither"]
    confidence: float
    """Share of the draws in which the decision is the same."""
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    currency: str
    prices_as_of: str
    fields: tuple[dict[str, Any], ...]
    """Of the case: field, value, basis (measured or assumed), from, at."""
    totals: dict[str, float]
    """By approach, from 0 to 5."""
    scores: tuple[dict[str, Any], ...]
    """dimension, weight, approach, score, reason."""
    questions: tuple[dict[str, str], ...]
    """question, answer, basis, follows."""
    situation: str
    """The typical one that the case is like."""
    costs: tuple[dict[str, Any], ...]
    """way, approach, ruled_out, per_request, a_month, gpus and items, an amount each."""
    break_evens: tuple[dict[str, Any], ...]
    """requests a month, from which above is cheaper than below; cost a month there; step where a GPU turns it round."""
    sensitivity: tuple[dict[str, Any], ...]
    """Of the cost of the way that is advised: what, low, high, cheapest_low, cheapest_high."""
    draws: dict[str, float]
    """By approach, the share of the draws in which it comes first."""
    flips: tuple[dict[str, Any], ...]
    """field, now, at, becomes: what would change the decision, the nearest first."""
    steps: tuple[str, ...]
    """What to do, in order."""
    seconds: dict[str, float] = field(default_factory=dict)
    run_id: str = ""
    """In MLflow."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered version, as far as it matters to whether it stays."""

    name: str
    number: int
    created: float
    """Seconds since the epoch."""
    lived: bool
    """Whether it was ever live."""
    protected: str = ""
    """Why nothing may remove it, such as "is live"; empty where retention decides."""
    parts: tuple[str, ...] = ()
    """Of a release, as ``name@number``."""

    @property
    def pinned(self) -> str:
        """As ``name@number``."""
        return f"{self.name}@{self.number}"


@dataclass(frozen=True, slots=True)
class Removal:
    """Something that is kept no longer, and why."""

    kind: str
    """Such as ``versions`` or ``traces``."""
    what: str
    count: int
    why: str
    failed: str = ""
    """Why it is still there, where it was to go."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something about the installation that does not fit, and what mends it."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """What a run of the maintenance came to, as the flow's result and as the command's closing table."""

    decision: Literal["in order", "troubles"]
    """Whether anything is wrong that it did not mend."""
    applied: bool
    """False where it only said what it would do."""
    removals: tuple[Removal, ...]
    mended: tuple[str, ...]
    """As sentences."""
    troubles: tuple[Trouble, ...]
    """What is wrong still."""
    space: dict[str, tuple[int, int]]
    """Bytes before and after, by the kind of what takes them."""
    left_alone: tuple[str, ...] = ()
    """What others keep in the same place, as sentences."""
    seconds: dict[str, float] = field(default_factory=dict)
    run_id: str = ""
    """In MLflow."""


Sign = Literal["drift", "quality", "stale", "old", "changed"]
"""What a watch finds: questions or a measure of answers changed; a source, a version or a model is not as it should."""


@dataclass(frozen=True, slots=True)
class Spotted:
    """One thing that a watch found."""

    sign: Sign
    what: str
    """Whom it is about, such as ``refused`` or ``docs/north``; with the sign it tells findings apart."""
    sentence: str
    remedy: str
    known: bool = False
    """Whether the run before found it too."""

    @property
    def key(self) -> str:
        return f"{self.sign} {self.what}"


@dataclass(frozen=True, slots=True)
class Monitored:
    """What a watch came to, as the flow's result and as the command's closing table."""

    name: str
    release: str
    """As ``name@number``; the live one."""
    decision: Literal["quiet", "found"]
    found: tuple[Spotted, ...]
    notes: tuple[str, ...]
    """What could not be looked at, and why."""
    counts: dict[str, int]
    scores: dict[str, dict[str, float]]
    """By series: before, now, and the p-value that is corrected for their number."""
    seconds: dict[str, float] = field(default_factory=dict)
    run_id: str = ""
    """In MLflow."""


class Cause(StrEnum):
    """Why an answer failed."""

    NOT_IN_SOURCES = "not_in_sources"
    NOT_RETRIEVED = "not_retrieved"
    """With a detail: ``chunking``, ``vocabulary`` or ``filter``."""
    NOT_USED = "not_used"
    CONTRADICTED = "contradicted"
    FORM = "form"
    """The right facts in the wrong form, tone or structure."""
    WRONGLY_REFUSED = "wrongly_refused"
    GUARDRAIL = "guardrail"
    UNEXPLAINED = "unexplained"
    """No rule fits."""


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """What a diagnosis came to, as the flow's result and as the command's closing table."""

    name: str
    release: str
    """As ``name@number``."""
    asked: int
    failed: int
    causes: dict[str, int]
    """Failed answers by cause, every cause among them; with a detail as ``not_retrieved: chunking``."""
    fixes: dict[str, str]
    """By cause, as in `causes`, the cheapest fix; of causes that occur."""
    commands: dict[str, str]
    """By cause, what to type for it."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""
    seconds: dict[str, float] = field(default_factory=dict)
    run_id: str = ""
    """In MLflow."""


DataKind = Literal["sft", "dpo", "golden"]
"""Examples, pairs of answers, or golden queries."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A row that use suggests, or a stronger model, and that counts once a person approves it."""

    id: str
    """Hash over what it teaches."""
    kind: DataKind
    source: Literal["correction", "thumbs", "diagnosis", "distillation"]
    question: str
    answer: str = ""
    """The completion of an example, or the chosen one of a pair; a golden query has none."""
    rejected: str = ""
    """Of a pair."""
    prompt: tuple[dict[str, str], ...] = ()
    """The turns that the release read, passages included; a golden query has none."""
    relevant: tuple[str, ...] = ()
    """Of a golden query: the documents that answer it."""
    tenant: str = ""
    topic: str = ""
    """The document that it is about; empty where it rests on none."""
    release: str = ""
    """Whose prompt it is, as ``name@number``."""
    traces: tuple[str, ...] = ()
    """Ids of the traces that it comes from."""
    side: Literal["train", "held_out"] = "train"
    """A golden query is always held out."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided on a row; the last word counts."""

    id: str
    approved: bool
    answer: str
    """As it was approved, edited or not."""
    by: str
    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class DataVersion:
    """A data set of approved rows, in MLflow."""

    name: str
    number: int
    digest: str
    """Hash over its rows and their sides."""
    train: int
    """Rows, as of `held_out`."""
    held_out: int
    run_id: str

    @property
    def pinned(self) -> str:
        """As ``name@number``."""
        return f"{self.name}@{self.number}"


@dataclass(frozen=True, slots=True)
class Curated:
    """What learning from use came to, as the flow's result and as the command's closing table."""

    name: str
    decision: Literal["new versions", "waits", "nothing new"]
    reasons: tuple[str, ...]
    drafted: dict[str, dict[str, int]]
    """New rows that wait, by where they come from, then by kind."""
    left_out: dict[str, int]
    """By reason."""
    rows: dict[str, dict[str, int]]
    """By kind: waiting, approved, rejected."""
    versions: dict[str, str]
    """The newest of each kind, as ``name@number``."""
    review: str
    """The file with the rows that wait."""
    spent: float = 0.0
    """On distillation, over all runs."""
    seconds: dict[str, float] = field(default_factory=dict)
    run_id: str = ""
    """In MLflow."""
