"""The configuration of an advice: a case under conf/cases/, and a dated file of prices. Imports nothing heavy."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.config.fields import Name, Share, Strict

Version = Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9_-]{0,62}@(champion|candidate|previous|[0-9]+))?$")]
Price = Annotated[Decimal, Field(ge=0)]


class HostedPrice(Strict):
    """What a model behind an API costs by the token."""

    name: Name
    """By which a case names it."""
    input_per_million: Price
    """Of a million tokens read."""
    output_per_million: Price
    """Of a million tokens written."""
    offline_discount: Annotated[Decimal, Field(ge=0, lt=1)]
    """Share of the price that is not paid for what may wait, 0 to below 1."""
    source: str
    """Where the price comes from."""


class GpuPrice(Strict):
    """What a GPU costs by the hour."""

    name: Name
    """By which a case names it."""
    hour: Price
    """Of one GPU."""
    source: str
    """Where the price comes from."""


class ServicesPrice(Strict):
    """What runs beside the model."""

    retrieval_per_month: Price
    """The index's machine or service, by the month."""
    retrieval_per_request: Price
    """The same, by the search."""
    observability_per_month: Price
    """Traces, metrics and their machines."""
    source: str
    """Where the prices come from."""


class PricesConfig(Strict):
    """Every price that an advice reckons with, of one day."""

    as_of: date
    """The day on which the prices were looked up."""
    currency: str = Field(min_length=1, max_length=4)
    """Sign before an amount, such as $."""
    hours_in_month: Annotated[Decimal, Field(ge=672, le=744)]
    """Hours that are paid for in a month: 730 is a twelfth of a year."""
    engineer_hour: Price
    """Of the people who build and keep it."""
    storage_per_gb_month: Price
    """Of the index's files."""
    hosted: tuple[HostedPrice, ...] = Field(min_length=1)
    """Models behind an API."""
    gpus: tuple[GpuPrice, ...] = Field(min_length=1)
    """GPUs to rent."""
    beside_hosted: ServicesPrice
    """What runs beside a hosted model."""
    beside_own: ServicesPrice
    """What runs beside a model on GPUs of one's own."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> "PricesConfig":
        for kind in (self.hosted, self.gpus):
            names = [each.name for each in kind]
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"two prices are called {', '.join(sorted(twice))}: give each a name of its own")
        return self


class WeightsConfig(Strict):
    """How much each dimension counts beside the others."""

    freshness: float = Field(1, ge=0, le=100)
    """That answers follow what changes."""
    long_tail: float = Field(1, ge=0, le=100)
    """That rare questions are answered rightly too."""
    latency: float = Field(1, ge=0, le=100)
    """That answers come in time."""
    cost: float = Field(1, ge=0, le=100)
    """What it costs a month, build and upkeep included."""
    control: float = Field(1, ge=0, le=100)
    """That facts, form and model can be put right."""
    compliance: float = Field(1, ge=0, le=100)
    """Citations, erasure, tenants kept apart, where the data are."""
    evaluability: float = Field(1, ge=0, le=100)
    """That one can tell whether it got better, and why an answer is wrong."""

    @model_validator(mode="after")
    def _something_counts(self) -> "WeightsConfig":
        if not any(self.model_dump().values()):
            raise ValueError("every weight is 0: let at least one dimension count")
        return self


class CaseConfig(Strict):
    """A workload: shall it be answered by retrieval, fine-tuning, or both, and what does each cost?"""

    name: Name
    """Name of the case, and of its experiment in MLflow."""
    description: str = ""
    """What it is about."""
    release: Version = ""
    """A release whose measurements count instead of what is assumed here, such as helpdesk@champion."""
    index: Version = ""
    """Likewise an index; that of the release, if empty."""
    adapter: Version = ""
    """Likewise an adapter; that of the release, if empty."""
    days: float = Field(30, gt=0, le=3650)
    """Measurements of the service and of re-indexing as old as that count."""
    prices: str = "prices.yaml"
    """The file with the prices, in conf/."""
    max_price_age_days: int = Field(90, ge=1)
    """Older prices are warned of."""

    requests: int = Field(ge=1, le=10**10)
    """Requests a month."""
    mode: Literal["online", "offline"] = "online"
    """Whether somebody waits for the answer; offline, GPUs are paid for only while they work."""
    latency_ms: float = Field(2000, gt=0)
    """Longest time in which 95 % of the answers have to come."""
    tokens_in: float = Field(gt=0, le=10**7)
    """Tokens read for an answer from passages."""
    tokens_in_alone: float = Field(gt=0, le=10**7)
    """Tokens read for an answer without passages."""
    tokens_out: float = Field(ge=0, le=10**6)
    """Tokens written for an answer."""
    answer_ms: float = Field(1500, ge=0)
    """Time within which 95 % of the answers from passages come."""
    alone_ms: float = Field(900, ge=0)
    """Time within which 95 % of the answers without a search come."""

    documents: int = Field(ge=0)
    """Documents that hold the knowledge."""
    index_gb: float = Field(1, ge=0)
    """Size of the index on disk, its older versions included."""
    changed_share: Share
    """Share of the documents that changes in a month."""
    refresh_days: float = Field(1, gt=0, le=366)
    """Days from one re-index to the next."""
    tail_share: Share = 0.3
    """Share of the questions that only one or two documents answer."""
    tenants: int = Field(1, ge=1)
    """Tenants, none of whom may see another's documents."""
    citations: Literal["required", "welcome", "unneeded"] = "welcome"
    """Whether an answer has to name its sources."""
    erasure: bool = False
    """Whether something must be forgotten on demand, such as personal data."""
    residency: Literal["anywhere", "region", "own machines"] = "anywhere"
    """Where documents and questions may go."""
    output: Literal["text", "structured", "label"] = "text"
    """Form of an answer: free text, JSON by a schema, or one of a set of labels."""

    behaviour_share: Share
    """Share of the failures of a plain model that are of form, tone, structure or judgement, not of missing facts."""
    right: Share = 0.85
    """Share of the questions about facts that are answered rightly with retrieval."""
    prompted: Share = 0.6
    """Share of the failures of behaviour that instructions and examples in the prompt mend."""
    alone_share: Share = 0.0
    """Share of the questions that a fine-tuned model answers without a search where routing lets it; 0 for no
    routing."""
    examples: int = Field(ge=0)
    """Labelled examples at hand to fine-tune on."""
    golden: int = Field(ge=0)
    """Questions with known answers to measure with."""

    hosted_model: Name
    """The model behind an API, as the prices call it."""
    tuned_model: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9_-]{0,62})?$")] = ""
    """The fine-tuned model behind an API, as the prices call it; on GPUs of one's own, if empty."""
    gpu: Name
    """The GPU, as the prices call it."""
    min_gpus: int = Field(1, ge=1, le=10_000)
    """Fewest GPUs that serve, for safety's sake."""
    gpu_tokens_per_second: float = Field(0, ge=0)
    """Tokens, read and written, that one GPU gets through; unknown, if 0: then the fewest GPUs are reckoned with."""
    peak: float = Field(3, ge=1, le=1000)
    """Requests in the busiest minutes, as a multiple of the mean."""
    trainings_a_year: float = Field(4, gt=0, le=366)
    """How often the adapter is trained."""
    training_gpu_hours: float = Field(8, ge=0)
    """GPU hours of one training, its evaluation included."""
    training_cost: float = Field(0, ge=0)
    """What one training costs besides: examples, labelling, review."""
    retrieval_build_hours: float = Field(80, ge=0)
    """People's hours to build retrieval."""
    retrieval_upkeep_hours: float = Field(8, ge=0)
    """People's hours a month to keep it."""
    tuning_build_hours: float = Field(120, ge=0)
    """People's hours to build fine-tuning, its data and its serving."""
    tuning_upkeep_hours: float = Field(12, ge=0)
    """People's hours a month to keep it."""
    months: int = Field(12, ge=1, le=120)
    """Months over which the building is paid off."""

    weights: WeightsConfig = WeightsConfig()
    """How much each dimension counts."""
    draws: int = Field(1000, ge=100, le=20_000)
    """Draws of weights and fields from which the confidence comes."""
    seed: int = Field(0, ge=0, le=2**31)
    """Of the draws."""
    spread_weights: float = Field(0.5, ge=0, lt=1)
    """A weight is drawn from within this share of itself, down and up."""
    spread_assumed: float = Field(0.5, ge=0, lt=1)
    """Likewise a field that is assumed."""
    spread_measured: float = Field(0.1, ge=0, lt=1)
    """Likewise a field that was measured."""
    swing: float = Field(0.25, gt=0, lt=1)
    """Share by which the sensitivity changes one thing at a time, down and up."""
