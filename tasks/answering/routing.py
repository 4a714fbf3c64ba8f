"""Speculative routing: a fine-tuned model answers alone where it is sure, and a search is made where it is not."""

import re
from collections.abc import Sequence

from tasks.answering.generators import Turn
from tasks.config.answering import RoutingConfig
from tasks.records import Generated


def needs_search(question: str, config: RoutingConfig) -> bool:
    """Whether a question asks for what only a search can give, such as a source."""
    return _matches(question, config.searched)


def turns_alone(question: str, config: RoutingConfig) -> list[Turn]:
    """What the model reads where it answers alone."""
    system = [{"role": "system", "content": config.system}] if config.system else []
    return [*system, {"role": "user", "content": question}]


def certainty(draft: Generated, config: RoutingConfig) -> float:
    """How sure the model is of what it says alone; -1, below every threshold, where that is no answer.

    It says nothing, says that it does not know, or its server does not tell how likely it finds its words.
    """
    if draft.confidence is None or not draft.text.strip() or _matches(draft.text, config.unsure):
        return -1.0
    return draft.confidence


def _matches(text: str, expressions: Sequence[str]) -> bool:
    return any(re.search(each, text, re.IGNORECASE) for each in expressions)
