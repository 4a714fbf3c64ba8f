"""The configuration of a diagnosis: one file under conf/diagnose/. Imports nothing heavy."""

import re

from pydantic import Field, field_validator, model_validator

from tasks.config.evaluation import Release
from tasks.config.fields import Name, Share, Strict


class FormConfig(Strict):
    """What an answer must look like, whatever it says."""

    pattern: str = ""
    """A regular expression that the whole text must match; any text, if empty."""
    json_schema: str = ""
    """File with the JSON schema that it must fit; none, if empty."""
    max_words: int = Field(0, ge=0)
    """Most words; 0 for any number."""

    @field_validator("pattern")
    @classmethod
    def _is_expression(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return pattern


class DiagnoseConfig(Strict):
    """Ask a release a suite's questions and those whose answers people disliked, and say why each answer failed."""

    name: Name
    """Name of the diagnosis, and of its experiment in MLflow."""
    description: str = ""
    """What it is for."""
    release: Release
    """The release, such as helpdesk@champion."""
    questions: str = ""
    """Golden queries (jsonl) to ask; none, if empty."""
    days: float = Field(7, ge=0, le=3650)
    """Traces as old as that are read for thumbs down and corrections; none are, if 0."""
    experiment: str = Field("", max_length=200)
    """The MLflow experiment that holds the traces; `answers-` and the name of the release, if empty."""
    max_traces: int = Field(500, ge=1, le=100_000)
    """Most traces with feedback that are asked again, the newest first."""
    form: FormConfig = FormConfig()
    """What an answer must look like; one that does not has failed, even if its facts are right."""
    same_facts: Share = 0.8
    """A text has the facts of the expected answer if it has so many of the words that tell, and all of the figures."""
    about: Share = 0.6
    """Least share of the question's words in a passage that nobody named as relevant, to count as its answer."""
    context: Share = 0.25
    """A passage was cut off from its context if with its neighbours it has so much more of the question's words."""
    support: Share = 0.5
    """Least share of an answer's words that stand in the passages it cites, where nobody said what is right; less, and
    it does not rest on them."""
    try_fixes: bool = True
    """Ask again what failed, with settings that might mend it, and report how many answers they mend."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of intervals."""
    examples: int = Field(3, ge=0, le=100)
    """Failed answers of each cause that the report shows."""

    @model_validator(mode="after")
    def _asks_something(self) -> "DiagnoseConfig":
        if not self.questions and not self.days:
            raise ValueError("there is nothing to diagnose: name golden queries under questions, or raise days")
        return self
