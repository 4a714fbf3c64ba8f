"""The configuration of the answering service: a file under conf/service/, named as the release. Nothing heavy."""

import ipaddress
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from tasks.config.fields import Share, Strict
from tasks.config.settings import Home


class LimitsConfig(Strict):
    """What one request may cost, how many are taken at once, and of each key. Beyond it one is refused at once."""

    workers: int = Field(8, ge=1, le=256)
    """Requests that are answered at the same time."""
    waiting: int = Field(64, ge=0, le=10_000)
    """Requests that may wait for their turn; one more is answered 503."""
    requests_per_minute: int = Field(0, ge=0, le=1_000_000)
    """Requests that a key may make in a minute, so many at once after a pause; one more is answered 429. Any number, if
    0. A key may have a limit of its own; without keys it is one for everybody."""
    requests_at_once: int = Field(0, ge=0, le=10_000)
    """Requests of a key that are answered at the same time or wait, so that others find a place; likewise."""
    connections: int = Field(1000, ge=1)
    """Open connections; one more is answered 503."""
    seconds: float = Field(60, gt=0, le=3600)
    """Longest time from a request to its answer, waiting included; then it is answered 504."""
    receive_seconds: float = Field(10, gt=0, le=600)
    """Longest time for a request to arrive; then it is answered 408."""
    body_kb: int = Field(256, ge=1, le=65_536)
    """Largest request, in units of 1,024 bytes; a larger one is answered 413."""
    question_characters: int = Field(8_000, ge=1)
    """Longest question or query."""
    passages: int = Field(50, ge=1, le=1_000)
    """Most passages of one search."""


class TracingConfig(Strict):
    """What is kept of every answer and search in MLflow. Feedback is about a trace, so without traces there is none."""

    enabled: bool = True
    """Write traces."""
    experiment: str = Field("", max_length=200)
    """The MLflow experiment; `answers-` and the name of the release, if empty."""
    sample: Share = 1.0
    """Share of the answers and searches that are traced."""
    texts: Literal["none", "questions", "answers", "passages"] = "questions"
    """The texts that traces hold, each choice with those before it. An extractive answer consists of sentences of
    passages."""
    waiting: int = Field(1000, ge=1)
    """Traces that may wait to be written; further ones are lost, and counted."""


class TrialConfig(Strict):
    """The release that waits as `candidate` beside the live one, until it is clear whether it is worse."""

    share: Share = 0.0
    """Share of the conversations that it gets; 0 for none. All of a conversation goes one way."""
    max_loss: float = Field(0.05, ge=0, lt=1)
    """Mean loss that is tolerated: of an answer's worth in a shadow, of the share of answers with citations and of
    thumbs up in a canary."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """How sure the verdict must be, however often one looks."""
    max_pairs: int = Field(5000, ge=1, le=1_000_000)
    """Answers of the candidate after which the comparison ends undecided."""
    waiting: int = Field(100, ge=1, le=100_000)
    """Answers that may wait to be compared; further ones are left out, and counted."""


class ServiceConfig(Strict):
    """Where a release answers, to whom, within which limits, and what is kept of it."""

    host: str = "127.0.0.1"
    """The address to listen on. Beyond loopback (127.0.0.1, ::1, localhost) nobody is answered without a key."""
    port: int = Field(8020, ge=0, le=65_535)
    """The port to listen on; 0 takes a free one."""
    keys: str = "data/keys.json"
    """The file of hashed keys, relative to the home; `tandem keys add` writes it. While it holds no key, a service on
    loopback answers everybody on this machine."""
    poll_seconds: float = Field(1, gt=0, le=60)
    """How often the registry is asked which version is live."""
    retry_seconds: float = Field(10, gt=0, le=3600)
    """How long a version that did not load is left alone before it is tried again."""
    open_releases: int = Field(2, ge=1, le=10)
    """Versions kept open, the live one included: a return to one of them loads nothing. Each may hold a model."""
    passage_texts: bool = False
    """Whether the citations of an answer carry the text of their passages. A search always gives texts."""
    limits: LimitsConfig = LimitsConfig()
    """What is refused."""
    tracing: TracingConfig = TracingConfig()
    """What is kept."""
    canary: TrialConfig = TrialConfig()
    """Conversations that the candidate answers in place of the live release."""
    shadow: TrialConfig = TrialConfig()
    """Conversations of which the candidate is asked a copy, after the live release has answered."""

    def keys_file(self, home: Home) -> Path:
        """Where the hashed keys lie."""
        return home.root / self.keys

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @model_validator(mode="after")
    def _tries_one_way(self) -> "ServiceConfig":
        if self.canary.share and self.shadow.share:
            raise ValueError("canary.share and shadow.share are both set: try the candidate one way at a time")
        if self.canary.share == 1:
            raise ValueError("canary.share is 1: nobody would be left to compare with")
        return self

    @model_validator(mode="after")
    def _has_a_file_of_keys(self) -> "ServiceConfig":
        if not self.keys:
            raise ValueError("keys: name the file, which need not exist as long as host is a loopback address")
        return self
