"""The assistant: a question in, passages found, an answer that cites them or a refusal that says where it looked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.answering.filters import Screened, screen_answer, screen_passages, screen_question
from tasks.answering.generators import Generator, Turn
from tasks.answering.grounding import Grounding
from tasks.answering.prompting import fill
from tasks.config.answering import PolicyConfig
from tasks.index.search import Filters, IndexReader
from tasks.records import Answer, Passage
from tasks.timing import timed

SPARE = 2
"""Passages are searched for so many times as are answered from."""


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
        with timed(seconds, "filters"):
            asked = screen_question(question, self.policy.filters)
        found: Sequence[Passage] = ()
        if not asked.refusal:
            with timed(seconds, "search"):
                found = self.search(asked.text, tenant)
        return self._answer(asked, found, seconds)

    def search(self, question: str, tenant: str | None = None) -> Sequence[Passage]:
        """The passages for a question: more than it is answered from, because filters may leave some out."""
        return self.reader.search([question], k=SPARE * self.policy.passages, filters=Filters(tenant=tenant))[0]

    def answer_from(self, question: str, passages: Sequence[Passage]) -> Answer:
        """Answer from these passages, or refuse where they are not likely enough to hold the answer."""
        seconds: dict[str, float] = {}
        with timed(seconds, "filters"):
            asked = screen_question(question, self.policy.filters)
        return self._answer(asked, passages, seconds)

    def _answer(self, asked: Screened, found: Sequence[Passage], seconds: dict[str, float]) -> Answer:
        policy, question = self.policy, asked.text
        with timed(seconds, "filters"):
            passages, left_out = screen_passages(() if asked.refusal else found, policy.passages, policy.filters)
        with timed(seconds, "grounding"):
            confidence = self.grounding.probability(question, passages) if passages else 0.0
        answer = Answer(
            question=question,
            text=policy.refusal.format(searched=self.versions["index"].partition("@")[0]),
            sentences=(),
            passages=passages,
            refused=True,
            confidence=confidence,
            versions=dict(self.versions),
            seconds=seconds,
            filtered=(*asked.filtered, *left_out),
        )
        if asked.refusal:
            return replace(answer, text=policy.filters.refusal.replace("{reason}", asked.refusal))
        if confidence < self.grounding.threshold:
            return answer
        with timed(seconds, "generation"):
            made = self.generator.answer(question, passages, fill(self.prompt, question, passages))
        with timed(seconds, "filters"):
            said = screen_answer(made.text, len(passages), self.prompt, policy.filters)
        answer = replace(
            answer,
            tokens_in=made.tokens_in,
            tokens_out=made.tokens_out,
            filtered=(*answer.filtered, *said.filtered),
        )
        if said.filtered and not said.sentences:
            reason = f"the answer holds {said.filtered[0].what}"
            return replace(answer, text=policy.filters.refusal.replace("{reason}", reason))
        return replace(answer, text=said.text, sentences=said.sentences, refused=False)
