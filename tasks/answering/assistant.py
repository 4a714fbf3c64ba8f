"""The assistant: a question in, passages found, an answer that cites them or a refusal that says where it looked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.answering.citations import read_sentences
from tasks.answering.generators import Generator, Turn
from tasks.answering.grounding import Grounding
from tasks.answering.prompting import fill
from tasks.config.answering import PolicyConfig
from tasks.index.search import Filters, IndexReader
from tasks.records import Answer, Passage
from tasks.timing import timed


@dataclass(frozen=True)
class Assistant:
    """One release, open and ready to answer. Every answer comes from this one from beginning to end."""

    reader: IndexReader
    generator: Generator
    prompt: Sequence[Turn]
    policy: PolicyConfig
    grounding: Grounding
    versions: Mapping[str, str]

    def answer(self, question: str, tenant: str | None = None) -> Answer:
        """Answer from what this tenant may see; without one, from everything."""
        seconds: dict[str, float] = {}
        with timed(seconds, "search"):
            found = self.search(question, tenant)
        return self.answer_from(question, found, seconds)

    def search(self, question: str, tenant: str | None = None) -> Sequence[Passage]:
        return self.reader.search([question], k=self.policy.passages, filters=Filters(tenant=tenant))[0]

    def answer_from(
        self, question: str, passages: Sequence[Passage], seconds: dict[str, float] | None = None
    ) -> Answer:
        """Answer from these passages, or refuse where they are not likely enough to hold the answer."""
        seconds = {} if seconds is None else seconds
        with timed(seconds, "grounding"):
            confidence = self.grounding.probability(question, passages) if passages else 0.0
        if confidence < self.grounding.threshold:
            refusal = self.policy.refusal.format(searched=self.versions["index"].partition("@")[0])
            return Answer(question, refusal, (), tuple(passages), True, confidence, dict(self.versions), seconds)
        with timed(seconds, "generation"):
            made = self.generator.answer(question, passages, fill(self.prompt, question, passages))
        return Answer(
            question=question,
            text=made.text,
            sentences=read_sentences(made.text, len(passages)),
            passages=tuple(passages),
            refused=False,
            confidence=confidence,
            versions=dict(self.versions),
            seconds=seconds,
            tokens_in=made.tokens_in,
            tokens_out=made.tokens_out,
        )
