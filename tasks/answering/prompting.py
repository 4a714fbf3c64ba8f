"""Fills a prompt: the question and the numbered passages go in, the turns for a language model come out."""

import re
from collections.abc import Mapping, Sequence

from tasks.answering.generators import Turn
from tasks.answering.structured import AnswerSchema, write
from tasks.errors import ConfigError
from tasks.records import Passage

PROMPT_VARIABLES = ("question", "passages")
"""What a prompt may name between double braces; both are filled in at every question."""

VARIABLE = re.compile(r"{{\s*(\w+)\s*}}")


def check_turns(turns: Sequence[Turn]) -> None:
    """Raises ConfigError where a prompt names a variable that nobody fills in, or leaves out the passages."""
    named = {name for turn in turns for name in VARIABLE.findall(turn["content"])}
    if unknown := sorted(named - set(PROMPT_VARIABLES)):
        raise ConfigError(f"the prompt names {', '.join(unknown)}: known are {', '.join(PROMPT_VARIABLES)}")
    if "passages" not in named:
        raise ConfigError("the prompt does not name the passages: write {{ passages }} where they shall stand")


def fill(turns: Sequence[Turn], question: str, passages: Sequence[Passage]) -> list[Turn]:
    """The turns with `{{ question }}` and `{{ passages }}` in their places.

    What is filled in is never read as a variable itself. A prompt without a user's turn gets the question as one.
    """
    values = {"question": question, "passages": write_passages(passages)}
    filled = [{"role": turn["role"], "content": _put(turn["content"], values)} for turn in turns]
    if not any(turn["role"] == "user" for turn in filled):
        filled.append({"role": "user", "content": question})
    return filled


def ask_for_json(turns: Sequence[Turn], schema: AnswerSchema, instruction: str) -> list[Turn]:
    """The turns, the last of which says what the answer must look like, in the words of `instruction`."""
    asked = instruction.replace("{schema}", write(schema.schema))
    *before, last = turns
    return [*before, last | {"content": f"{last['content']}\n\n{asked}"}] if asked else list(turns)


def write_passages(passages: Sequence[Passage]) -> str:
    """The passages as a model reads them, each with its number, where it comes from, and its date."""
    numbered = enumerate(passages, start=1)
    return "\n\n".join(f"[{number}] {_place(passage)}\n{passage.text}" for number, passage in numbered)


def _place(passage: Passage) -> str:
    parts = dict.fromkeys(filter(None, [passage.title, *passage.heading]))
    place = " › ".join(parts) or passage.document
    return f"{place} ({passage.date})" if passage.date else place


def _put(text: str, values: Mapping[str, str]) -> str:
    return VARIABLE.sub(lambda match: values.get(match[1], match[0]), text)
