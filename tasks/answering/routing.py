"""Speculative routing: a fine-tuned model answers alone where it is sure, and a search is made where it is not."""

import re

from tasks.answering.generators import Turn
from tasks.config.answering import RoutingConfig
from tasks.records import Generated


def needs_search(question: str, config: RoutingConfig) -> bool:
    """Whether a question asks for what only a search can give, such as a source."""
    return any(re.search(each, question, re.IGNORECASE) for each in config.searched)


def turns_alone(question: str, config: RoutingConfig) -> list[Turn]:
    """What the model reads where it answers alone."""
    system = [{"role": "system", "content": config.system}] if config.system else []
    return [*system, {"role": "user", "content": question}]


def trusted(draft: Generated, alone_from: float) -> bool:
    """Whether what the model says alone is the answer."""
    return bool(draft.text.strip()) and draft.confidence is not None and draft.confidence >= alone_from
