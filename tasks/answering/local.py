"""Answers by an adapter on its base model, in this process."""

from collections.abc import Sequence
from typing import Any, Protocol

from tasks.answering.generators import Turn
from tasks.records import Generated, Passage


class Adapted(Protocol):
    """A base model with an adapter; `tasks.training.adapter.Adapted` is one."""

    tokenizer: Any

    def answer(self, conversations: list[list[Turn]], max_new_tokens: int) -> list[str]: ...


class LocalGenerator:
    """Safe to use from several threads."""

    def __init__(self, adapted: Adapted, max_new_tokens: int) -> None:
        self._adapted = adapted
        self._max_new_tokens = max_new_tokens

    def answer(self, question: str, passages: Sequence[Passage], turns: Sequence[Turn]) -> Generated:
        text = self._adapted.answer([list(turns)], self._max_new_tokens)[0]
        tokenizer = self._adapted.tokenizer
        read = tokenizer.apply_chat_template(list(turns), add_generation_prompt=True, tokenize=True, return_dict=True)
        return Generated(text, len(read["input_ids"]), len(tokenizer(text)["input_ids"]))
