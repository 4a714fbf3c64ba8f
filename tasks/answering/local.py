"""Answers by an adapter on its base model, in this process."""

from collections.abc import Sequence
from typing import Protocol

from tasks.answering.generators import Turn
from tasks.answering.structured import AnswerSchema
from tasks.records import Generated, Passage


class Said(Protocol):
    """An answer, and what it took."""

    @property
    def text(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def tokens_in(self) -> int: ...
    @property
    def tokens_out(self) -> int: ...
    @property
    def cut(self) -> bool: ...


class Adapted(Protocol):
    """A base model with an adapter; `tasks.training.adapter.Adapted` is one."""

    def say(self, conversations: list[list[Turn]], max_new_tokens: int, grammar: str = "") -> Sequence[Said]: ...


class LocalGenerator:
    """Safe to use from several threads."""

    def __init__(self, adapted: Adapted, max_new_tokens: int) -> None:
        self._adapted = adapted
        self._max_new_tokens = max_new_tokens

    def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        turns: Sequence[Turn],
        schema: AnswerSchema | None = None,
    ) -> Generated:
        [said] = self._adapted.say([list(turns)], self._max_new_tokens, schema.grammar if schema else "")
        return Generated(said.text, said.tokens_in, said.tokens_out, said.confidence, said.cut)
