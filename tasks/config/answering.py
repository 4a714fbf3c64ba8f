"""The configuration of an assistant: how it searches, when it refuses, what writes its answers.

`PolicyConfig` is a file under conf/policies/, `PromptConfig` one under conf/prompts/, and `ReleaseConfig`, one under
conf/release/, is the one parameter of the flow that binds index, adapter, prompt and policy. Imports nothing heavy.
"""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tasks.config.choices import Choice
from tasks.config.fields import Address, Name, Share, Strict

NAME, WHICH = "[a-z0-9][a-z0-9_-]{0,62}", "@(champion|candidate|previous|[0-9]+)"


class PromptConfig(Strict):
    """A prompt: one file under conf/prompts/, versioned in MLflow's prompt registry."""

    description: str = ""
    """What it is for."""
    system: str = ""
    """The system turn, if there is one. `{{ passages }}` stands for the numbered passages, `{{ question }}` for the
    question."""
    user: str = Field("{{ question }}", min_length=1)
    """The user's turn, with the same variables."""


class EndpointConfig(Strict):
    """A language model behind an OpenAI-compatible address."""

    base_url: Address = Field(min_length=1)
    """Of the endpoint, ending in /v1."""
    model: str = Field(min_length=1)
    """Name of the model at the endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the endpoint's key."""
    timeout_seconds: float = Field(60, gt=0)
    """How long an endpoint may take."""
    max_new_tokens: int = Field(1024, ge=1, le=32_768)
    """Longest answer of a language model."""


class GeneratorConfig(EndpointConfig):
    """What writes the answers."""

    kind: Literal["extractive", "transformers", "endpoint"] = "extractive"
    """The best supported sentences themselves, which needs no language model; the release's adapter on its base model;
    or an OpenAI-compatible endpoint."""
    max_new_tokens: int = Field(256, ge=1, le=32_768)
    """Longest answer of a language model."""
    sentences: int = Field(2, ge=1, le=10)
    """Most sentences of an extractive answer."""
    base_url: Address = ""
    """Of an endpoint, ending in /v1."""
    model: str = ""
    """Name of the model at the endpoint."""
    load_adapter: bool = False
    """Let the endpoint, a vLLM on this machine's files, load the release's adapter and unload it afterwards. Otherwise
    it must have been started with it, under a name such as support-v3."""

    @model_validator(mode="after")
    def _endpoint_is_named(self) -> "GeneratorConfig":
        if self.kind == "endpoint" and not (self.base_url and self.model):
            raise ValueError("generator.kind is endpoint: name its base_url and model")
        if self.load_adapter and self.kind != "endpoint":
            raise ValueError(f"generator.load_adapter is for an endpoint, and the kind is {self.kind}: leave it out")
        return self


class GroundingConfig(Strict):
    """When the assistant says that it does not know."""

    min_precision: Share = 0.8
    """Of the refusals, the least share that must have been right; among thresholds that keep it, the one with the
    highest recall is taken."""


class FiltersConfig(Strict):
    """What may neither be asked nor said."""

    question: Literal["off", "redact", "refuse"] = "redact"
    """Secrets and personal data in a question: leave them, take them out before anything reads it, or refuse it. Of the
    turns before it a language model reads as much as it may of a question."""
    answer: Literal["off", "redact", "withhold"] = "redact"
    """Secrets and personal data in passages and answers: leave them, take them out, or withhold the sentences that hold
    them."""
    allowed: tuple[str, ...] = ()
    """Personal data that may be said, such as help@company.com, company.com for all addresses of a domain, or a
    telephone number as it is written."""
    orders: bool = True
    """Leave out passages and earlier turns that give orders to the assistant, and refuse questions that do."""
    prompt: bool = True
    """Withhold sentences that repeat the prompt."""
    refusal: str = "I cannot answer that: {reason}."
    """What it says instead; `{reason}` stands for what speaks against it."""


class RetrievalConfig(Strict):
    """How hard it looks for passages: beyond one search, everything costs time."""

    expansion: Literal["nothing", "feedback", "model"] = "nothing"
    """Search by the question alone; again with words that set the best passage apart from the others; or also by what
    the release's language model writes, where it was not only trained for something else."""
    instruction: str = (
        "Write three lines and nothing else, in the language of the question: the question in other words, the "
        "question in yet other words, and a sentence that might answer it."
    )
    """What a language model is told; the first three lines that it writes are searched for."""
    hops: int = Field(1, ge=1, le=4)
    """Searches in a row, each after the first by what the best passage of the one before says, for questions whose
    answer lies in several documents."""
    neighbours: int = Field(0, ge=0, le=10)
    """So many passages before and after each found one, of the same document, are read with it as one passage."""

    @property
    def is_one_search(self) -> bool:
        return self.expansion == "nothing" and self.hops == 1


class CondensingConfig(Strict):
    """How a conversation becomes one question."""

    by: Literal["words", "model", "nothing"] = "words"
    """Put earlier questions in front of one that leans on them; let the release's language model write the question
    anew, where it was not only trained for something else; or answer the last question as it stands."""
    turns: int = Field(6, ge=1, le=100)
    """Turns before the question that are read, the user's and the assistant's."""
    instruction: str = (
        "Write the last question of this conversation so that it is understood without the rest. "
        "Answer with the question alone, in its own language."
    )
    """What a language model is told."""


class RoutingConfig(Strict):
    """Let a fine-tuned model answer alone, without a search, where it is sure of itself."""

    alone: bool = False
    """Whether it may answer alone; otherwise every question is searched for."""
    max_loss: Share = Field(0.01, gt=0)
    """Of the questions, the share that may be answered wrongly alone and would be answered rightly after a search."""
    system: str = ""
    """The system turn that the model reads when it answers alone, as in its training; the question is the user's."""
    searched: tuple[str, ...] = (r"\b(sources?|cit(e|ed|ation|ations)|references?|according to|links?|quotes?)\b",)
    """Regular expressions, in any case: questions that match one need a citation, and are always searched for."""
    unsure: tuple[str, ...] = (r"\bI (do not|don['’]t|cannot|can['’]t) (know|say|tell|answer)\b",)
    """Regular expressions, in any case: what the model says where it does not know, and a search is made. Training can
    teach it to, by questions that it does not learn the answers of (Zhang et al., "R-Tuning", NAACL 2024)."""

    @field_validator("searched", "unsure")
    @classmethod
    def _are_expressions(cls, expressions: tuple[str, ...]) -> tuple[str, ...]:
        for each in expressions:
            try:
                re.compile(each)
            except re.error as error:
                raise ValueError(f"{each!r} is no regular expression: {error}") from error
        return expressions


class PolicyConfig(Strict):
    """How an assistant answers: one file under conf/policies/."""

    description: str = ""
    """What it is for."""
    passages: int = Field(5, ge=1, le=50)
    """Passages that a question is answered from."""
    retrieval: RetrievalConfig = RetrievalConfig()
    """How hard it looks for them."""
    refusal: str = "I do not know: nothing in {searched} answers this."
    """What it says where nothing is relevant; `{searched}` stands for what was searched."""
    generator: GeneratorConfig = GeneratorConfig()
    """What writes the answers, and how."""
    grounding: GroundingConfig = GroundingConfig()
    """When it refuses."""
    condensing: CondensingConfig = CondensingConfig()
    """What becomes of the turns before a question."""
    schema_instruction: str = "Answer with JSON alone, which fits this schema: {schema}"
    """What is added to the last turn where an answer must fit a JSON schema, for which `{schema}` stands; nothing, if
    empty, for a model that was trained to write it."""
    conflicts: bool = True
    """Show statements that contradict each other on what was asked side by side, with their dates."""
    filters: FiltersConfig = FiltersConfig()
    """What becomes of secrets, personal data, orders to the assistant, and its prompt."""
    routing: RoutingConfig = RoutingConfig()
    """When the model answers without a search."""

    @model_validator(mode="after")
    def _there_is_a_model(self) -> "PolicyConfig":
        if self.routing.alone and self.generator.kind == "extractive":
            raise ValueError("routing.alone is for a model, and the generator is extractive: leave it out")
        if self.condensing.by == "model" and self.generator.kind == "extractive":
            raise ValueError("condensing.by is model, and the generator is extractive: leave it out, or take words")
        if self.retrieval.expansion == "model" and self.generator.kind == "extractive":
            raise ValueError(
                "retrieval.expansion is model, and the generator is extractive: leave it out, or take feedback"
            )
        return self


class ReleaseGateConfig(Strict):
    """What a release must show before it goes live."""

    min_rows: int = Field(20, ge=1)
    """Fewer questions than this never pass; each golden query counts twice, with its documents and without."""
    floors: dict[str, Share] = Field({})
    """Lowest acceptable value by score, such as refusal_precision: 0.8."""
    max_loss: Share = 0.02
    """Loss of rightly answered questions against the champion that is tolerated."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """How sure the gate must be that a loss greater than that is no chance before it rejects."""


class ReleaseConfig(Strict):
    """Bind an index, an adapter, a prompt and a policy into one version that is measured and put live as a whole."""

    name: Name
    """Name of the release in the MLflow registry."""
    index: Annotated[str, Field(pattern=f"^{NAME}{WHICH}$")]
    """The index, such as samples@champion or samples@3."""
    adapter: Annotated[str, Field(pattern=f"^({NAME}{WHICH})?$")] = ""
    """The adapter, such as support@champion, for a generator that has one."""
    prompt: Annotated[str, Field(pattern=f"^{NAME}({WHICH})?$")] = "answer"
    """The prompt: a file under conf/prompts/, registered in MLflow if it has changed; or a registered one, such as
    answer@champion."""
    policy: Annotated[str, Choice("policies")]
    """The policy: a file under conf/policies/."""
    golden: str
    """Golden queries (jsonl) of the index, each asked with its documents and without: what calibrates refusal and
    scores every release."""
    familiar: str = ""
    """Held-out questions with short answers (jsonl, as golden queries), by which a policy with routing is calibrated;
    where none are named, those of `golden` that have short answers."""
    guardrails: Annotated[str, Choice("suites/guardrails")] | None = None
    """The guardrail suite that it must withstand: a file under conf/suites/guardrails/."""
    gate: ReleaseGateConfig = ReleaseGateConfig()
    """What a release must show."""
    promote: Literal["auto", "ask", "never"] = "ask"
    """Put a release that passes live at once, leave it as candidate for a person, or only register it."""
    lock_minutes: float = Field(30, ge=0)
    """How long a second run waits for the first before it is skipped."""
