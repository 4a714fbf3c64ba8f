"""The configuration of learning from use: one file under conf/curate/. Imports nothing heavy."""

from typing import Annotated

from pydantic import Field, model_validator

from tasks.config.answering import EndpointConfig
from tasks.config.choices import Choice
from tasks.config.fields import Address, Name, Share, Strict
from tasks.config.index import EmbedderConfig


class CapsConfig(Strict):
    """Most rows of a kind that come from one place, so that none drowns the others; the newest are taken first."""

    source: int = Field(5000, ge=1)
    """From one of: corrections, thumbs, diagnosis, distillation."""
    tenant: int = Field(2000, ge=1)
    """From one tenant."""
    topic: int = Field(50, ge=1)
    """About one document: the first that the answer cites."""


class DistillConfig(EndpointConfig):
    """Let a stronger model draft questions from the index's passages, and answer them as the release would."""

    questions: int = Field(0, ge=0, le=10_000)
    """Passages to draft a question from, spread over the documents; 0 asks no model."""
    base_url: Address = ""
    """Of the endpoint, ending in /v1."""
    model: str = ""
    """Name of the model at the endpoint."""
    max_new_tokens: int = Field(512, ge=1, le=32_768)
    """Longest answer of the model."""
    price_in: float = Field(0, ge=0)
    """Price of a million tokens that the model reads."""
    price_out: float = Field(0, ge=0)
    """Price of a million tokens that the model writes."""
    max_cost: float = Field(0, ge=0)
    """Most that may be spent, over all runs together, in the currency of the prices. A call that might pass it is not
    made."""
    instruction: str = (
        "Write one question that a user might ask and that the text answers, in the user's own words and in the "
        "language of the text. Do not mention the text. Answer with the question alone."
    )
    """What the model is told when it drafts a question."""
    min_support: Share = 0.8
    """Least share of an answer's words that must stand in the passages that it cites."""

    @model_validator(mode="after")
    def _endpoint_is_named(self) -> "DistillConfig":
        if self.questions and not (self.base_url and self.model):
            raise ValueError("distill.questions is set: name its base_url and model")
        if self.questions and (self.price_in or self.price_out) and not self.max_cost:
            raise ValueError("distill has prices, and max_cost is 0: say how much may be spent")
        return self


class CurateConfig(Strict):
    """Make data sets of what people said of answers, for a person to approve row by row."""

    name: Name
    """Begins the names of the data sets: NAME-sft, NAME-dpo and NAME-golden."""
    description: str = ""
    """What it is for."""
    release: Name
    """The release whose answers are learnt from, such as helpdesk."""
    experiment: str = Field("", max_length=200)
    """The MLflow experiment that holds its traces; `answers-` and the name of the release, if empty."""
    days: float = Field(30, gt=0, le=3650)
    """Traces as old as that are read."""
    diagnosis: Name | None = None
    """The diagnosis whose newest run is read: right facts in the wrong form become examples. None, if empty."""
    golden: tuple[str, ...] = ()
    """Golden queries (jsonl) that the index and the release are scored with: nothing near them is ever trained on."""
    sft: Annotated[str, Choice("sft")] | None = None
    """The fine-tune that learns from the examples, which starts once there are enough: a file under conf/sft/ whose
    data set names `datasets:/NAME-sft@newest`."""
    dpo: Annotated[str, Choice("dpo")] | None = None
    """The same for the pairs: a file under conf/dpo/ whose data set names `datasets:/NAME-dpo@newest`."""
    new_rows: int = Field(50, ge=1)
    """Rows to train on that must have come since the last fine-tune, beside the least number that its own
    configuration asks for."""
    held_out_share: Share = 0.2
    """Share of the questions, with all that are near them, that are kept for scoring: only they become golden
    queries."""
    near: float = Field(0.5, gt=0, le=1)
    """Questions whose three-word shingles have this Jaccard similarity count as one."""
    near_meaning: float = Field(0.9, gt=0, le=1)
    """Those whose vectors have this cosine similarity do, too. Of BANKING77's questions 97 % of the pairs that are as
    similar have one intent, at 0.8 91 % (all-MiniLM-L6-v2). 1 leaves it to the words."""
    embedder: EmbedderConfig = EmbedderConfig()
    """What turns the questions into vectors; the packaged one knows English."""
    min_support: Share = 0.6
    """A passage holds a correction, or a sentence of one, if so much of its words stand in it."""
    caps: CapsConfig = CapsConfig()
    """How the rows are balanced."""
    distill: DistillConfig = DistillConfig()
    """Examples by a stronger model."""
    lock_minutes: float = Field(1, ge=0)
    """How long a second run waits for the first before it is skipped."""


class ApproveRowsConfig(Strict):
    """Decide on the rows that `tandem curate` drafted, in forms that this run waits for."""

    name: Name
    """Name of the curation: of its file under conf/curate/."""
    rows: int = Field(5, ge=1, le=50)
    """Rows of one form."""
    minutes: float = Field(60, gt=0, le=10_080)
    """How long the run waits for a form, on its worker; what was decided before is kept."""
    by: str = Field("", max_length=200)
    """Who decides; the worker's user, if empty."""
