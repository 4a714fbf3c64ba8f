"""What writes answers, behind one interface."""

from collections.abc import Sequence
from typing import Protocol

from tasks.answering.structured import AnswerSchema
from tasks.records import Generated, Passage

Turn = dict[str, str]


class Generator(Protocol):
    """Writes the answer to a question from passages."""

    def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        turns: Sequence[Turn],
        schema: AnswerSchema | None = None,
    ) -> Generated:
        """The answer, each sentence followed by the numbers of the passages it rests on, counted from 1.

        `turns` is the prompt filled in with both, for a generator that reads one. With a `schema`, which only language
        models are given, the answer is JSON that fits it.
        """
        ...
