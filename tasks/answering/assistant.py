"""The assistant: a question in, passages found, an answer that cites them or a refusal that says where it looked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.answering.condensing import by_model, by_words
from tasks.answering.conflicts import find_conflict, show_conflicts
from tasks.answering.filters import (
    Screened,
    screen_answer,
    screen_json,
    screen_passages,
    screen_question,
    screen_schema,
)
from tasks.answering.generators import Generator, Turn
from tasks.answering.grounding import Grounding
from tasks.answering.prompting import ask_for_json, fill
from tasks.answering.retrieving import Found, Scope, retrieve
from tasks.answering.routing import certainty, needs_search, turns_alone
from tasks.answering.structured import AnswerSchema
from tasks.config.answering import PolicyConfig
from tasks.errors import SchemaError
from tasks.index.search import Filters, IndexReader, Mode
from tasks.records import Answer, Generated, Passage
from tasks.timing import timed

SPARE = 2
"""Passages are searched for so many times as are answered from."""
CUT = (
    "The answer would be longer than the {tokens} tokens that generator.max_new_tokens of the release's policy allows: "
    "ask for less."
)


@dataclass(frozen=True)
class Assistant:
    """One release, open and ready to answer. Every answer comes from this one from beginning to end."""

    reader: IndexReader
    generator: Generator
    prompt: Sequence[Turn]
    policy: PolicyConfig
    grounding: Grounding
    versions: Mapping[str, str]
    alone_from: float | None = None
    """Least confidence with which the model answers without a search; None where it never does."""

    def answer(
        self,
        question: str,
        tenant: str | None = None,
        *,
        cite: bool = False,
        earlier: Sequence[Turn] = (),
        schema: AnswerSchema | None = None,
    ) -> Answer:
        """Answer from what this tenant may see; without one, from everything.

        Where the release lets its model answer alone and the model is sure, nothing is searched; if `cite`, always.
        `earlier` are the turns of the conversation before the question, the user's and the assistant's. With a `schema`
        the answer is JSON that fits it, or a refusal in words; it is always searched for, since how sure a model is of
        JSON says something else than what the release was calibrated by.

        Raises SchemaError where nothing writes JSON here, and AnswerError where the model did not.
        """
        if schema:
            self.check_structured()
        seconds: dict[str, float] = {}
        made = self._condense(question, earlier, seconds)
        answer = self._answer_one(made.text, tenant, cite, schema, seconds)
        return _with_tokens_of(answer, made)

    def check_structured(self) -> None:
        """Raises SchemaError where the answers cannot be held to a schema."""
        if self.policy.generator.kind == "extractive":
            raise SchemaError(
                "the answers of this release are sentences of its passages, which fit no schema: leave it out, or take "
                "a policy whose generator is transformers or endpoint"
            )

    def _condense(self, question: str, earlier: Sequence[Turn], seconds: dict[str, float]) -> Generated:
        """The question that a conversation comes down to."""
        config = self.policy.condensing
        if not earlier or config.by == "nothing":
            return Generated(question)
        with timed(seconds, "condensing"):
            earlier = earlier[-config.turns :]
            own = by_words([*(turn["content"] for turn in earlier if turn["role"] == "user"), question])
            if config.by == "words" or screen_question(own, self.policy.filters).refusal:
                return Generated(own)
            made = by_model(self.generator, earlier, question, config, self.policy.filters)
            return made if made.text.strip() else replace(made, text=own)

    def _answer_one(
        self, question: str, tenant: str | None, cite: bool, schema: AnswerSchema | None, seconds: dict[str, float]
    ) -> Answer:
        with timed(seconds, "filters"):
            asked = screen_question(question, self.policy.filters)
            if schema:
                asked = replace(asked, filtered=(*asked.filtered, *screen_schema(schema, self.policy.filters)))
        if asked.refusal:
            return self._answer(asked, (), seconds)
        draft = None
        if self.alone_from is not None and not cite and not schema:
            with timed(seconds, "alone"):
                draft = self.draft(asked.text)
            if draft and certainty(draft, self.policy.routing) >= self.alone_from:
                return self._alone(asked, draft, seconds)
        with timed(seconds, "search"):
            found = self.search(asked.text, Filters(tenant=tenant))
        answer = _with_tokens_of(self._answer(asked, found.passages, seconds, schema), found)
        return _with_tokens_of(answer, draft) if draft else answer

    def search(
        self,
        question: str,
        filters: Filters = Filters(),
        k: int | None = None,
        *,
        mode: Mode | None = None,
        without: Callable[[Passage], bool] | None = None,
    ) -> Found:
        """The passages for a question, looked for as the policy says.

        `k` of them; by default more than it is answered from, because the policy's filters may leave some out. With
        `without`, as if the passages that it names were not there.
        """
        scope = Scope(self.reader, filters, mode, without)
        return retrieve(question, k or SPARE * self.policy.passages, scope, self.policy, self.generator)

    def answer_from(self, question: str, passages: Sequence[Passage]) -> Answer:
        """Answer from these passages, or refuse where they are not likely enough to hold the answer."""
        seconds: dict[str, float] = {}
        with timed(seconds, "filters"):
            asked = screen_question(question, self.policy.filters)
        return self._answer(asked, passages, seconds)

    def draft(self, question: str) -> Generated | None:
        """What the model says without passages, where that may be the answer."""
        if not self.policy.routing.alone or needs_search(question, self.policy.routing):
            return None
        return self.generator.answer(question, (), turns_alone(question, self.policy.routing))

    def _answer(
        self,
        asked: Screened,
        found: Sequence[Passage],
        seconds: dict[str, float],
        schema: AnswerSchema | None = None,
    ) -> Answer:
        policy, question = self.policy, asked.text
        with timed(seconds, "filters"):
            passages, left_out = screen_passages(() if asked.refusal else found, policy.passages, policy.filters)
        with timed(seconds, "grounding"):
            confidence = self.grounding.probability(question, passages) if passages else 0.0
        answer = replace(
            self._refusal(asked, seconds),
            passages=passages,
            confidence=confidence,
            filtered=(*asked.filtered, *left_out),
        )
        if asked.refusal or confidence < self.grounding.threshold:
            return answer
        with timed(seconds, "generation"):
            turns = fill(self.prompt, question, passages)
            if schema:
                turns = ask_for_json(turns, schema, policy.schema_instruction)
            made = self.generator.answer(question, passages, turns, schema)
        return self._finish(answer, made, self.prompt, schema)

    def _alone(self, asked: Screened, draft: Generated, seconds: dict[str, float]) -> Answer:
        answer = replace(self._refusal(asked, seconds), alone=True, confidence=draft.confidence or 0.0)
        return self._finish(answer, draft, turns_alone("", self.policy.routing)[:-1])

    def _refusal(self, asked: Screened, seconds: dict[str, float]) -> Answer:
        """What is said where there is nothing to say."""
        policy = self.policy
        if asked.refusal:
            text = policy.filters.refusal.replace("{reason}", asked.refusal)
        else:
            text = policy.refusal.format(searched=self.versions["index"].partition("@")[0])
        return Answer(asked.text, text, (), (), True, 0.0, dict(self.versions), seconds, filtered=asked.filtered)

    def _finish(
        self, answer: Answer, made: Generated, prompt: Sequence[Turn], schema: AnswerSchema | None = None
    ) -> Answer:
        """The answer with what was generated for it by this prompt, as far as it may be said."""
        policy = self.policy
        answer = replace(_with_tokens_of(answer, made), cut=made.cut)
        if schema and made.cut:  # half of a JSON text is none, and cannot be screened as one
            return replace(answer, text=CUT.format(tokens=policy.generator.max_new_tokens))
        with timed(answer.seconds, "filters"):
            if schema:
                said = screen_json(schema.read(made.text), schema, len(answer.passages), prompt, policy.filters)
            else:
                said = screen_answer(made.text, len(answer.passages), prompt, policy.filters)
        answer = replace(answer, filtered=(*answer.filtered, *said.filtered))
        if said.filtered and not said.sentences:
            reason = f"the answer holds {said.filtered[0].what}"
            return replace(answer, text=policy.filters.refusal.replace("{reason}", reason))
        answer = replace(answer, text=said.text, sentences=said.sentences, refused=False)
        if not policy.conflicts:
            return answer
        with timed(answer.seconds, "conflicts"):
            if schema:
                return replace(answer, conflict=find_conflict(answer.question, answer.passages))
            return show_conflicts(answer)


def _with_tokens_of(answer: Answer, made: Generated | Found) -> Answer:
    return replace(answer, tokens_in=answer.tokens_in + made.tokens_in, tokens_out=answer.tokens_out + made.tokens_out)
