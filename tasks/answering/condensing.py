"""Makes one question of a conversation, which is understood, searched for and answered by itself.

By words: what the user asked before stands in front of a follow-up such as "and on Sundays?". By a language model: it
writes the question anew.
"""

import re
from collections.abc import Sequence

from tasks.answering.filters import screen_question
from tasks.answering.generators import Generator, Turn
from tasks.answering.sentences import content_words
from tasks.config.answering import CondensingConfig, FiltersConfig
from tasks.records import Generated

REFERS = re.compile(
    r"\b(it|its|they|them|their|theirs|this|these|those|he|she|him|her|his|hers)\b"
    r"|^\W*(and|or|but|so|also|then|what about|how about|what if)\b",
    re.IGNORECASE,
)
OWN_WORDS = 2
"""A question with fewer content words says too little by itself."""
FOLLOW_UPS = 3
"""Of a chain of follow-ups, so many of the last questions are read."""


def by_words(questions: Sequence[str]) -> str:
    """The last question, with those before it that it leans on."""
    chain: list[str] = []
    for question in questions:
        chain = [*chain[1 - FOLLOW_UPS :], question] if chain and follows_up(question) else [question]
    return " ".join(chain)


def follows_up(question: str) -> bool:
    """Whether a question leans on what was said before, as far as its words tell."""
    return bool(REFERS.search(question)) or len(content_words(question)) < OWN_WORDS


def by_model(
    generator: Generator, earlier: Sequence[Turn], question: str, config: CondensingConfig, filters: FiltersConfig
) -> Generated:
    """The question as a language model writes it anew from the conversation.

    Every turn is screened as a question is, the assistant's too, which callers may have written: the model reads none
    that would be refused, and the others without private data.
    """
    turns = [
        f"{turn['role']}: {screened.text}"
        for turn in [*earlier, {"role": "user", "content": question}]
        if not (screened := screen_question(turn["content"], filters)).refusal
    ]
    asked = f"{config.instruction}\n\n" + "\n".join(turns)
    return generator.answer(question, (), [{"role": "user", "content": asked}])
