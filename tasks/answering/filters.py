"""What goes neither into an assistant nor out of it: secrets, personal data, orders to the assistant, its own prompt.

Passages are screened before anything reads them, so that a generator can say only what it may; the answer is screened
as well, because a language model may have learnt by heart what no passage holds.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from tasks.answering.citations import read_sentences, write_sentence
from tasks.answering.generators import Turn
from tasks.answering.orders import gives_orders
from tasks.answering.prompting import VARIABLE
from tasks.answering.structured import AnswerSchema, write
from tasks.config.answering import FiltersConfig
from tasks.private import Private, locate_private
from tasks.records import Filtered, Passage, Sentence

ORDERS = "orders to the assistant"
PROMPT = "the prompt"
PLACEHOLDER = re.compile(r"‹([^‹›\s]+)›")
"""What stands in the place of private data, such as ``‹e-mail_address›``: one word, so that links stay links."""
PROMPT_WORDS = 8
"""So many words of the prompt in a row repeat it."""
WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Screened:
    """A text, or passages, without what was filtered."""

    text: str
    filtered: tuple[Filtered, ...] = ()

    @property
    def refusal(self) -> str:
        """Why the whole is refused; empty where it is not."""
        return next((f"the {each.where} holds {each.what}" for each in self.filtered if each.action == "refused"), "")


@dataclass(frozen=True, slots=True)
class Said:
    """What remains of an answer: its text, which cites what its sentences cite."""

    text: str
    sentences: tuple[Sentence, ...]
    filtered: tuple[Filtered, ...] = ()


def screen_schema(schema: AnswerSchema, filters: FiltersConfig) -> tuple[Filtered, ...]:
    """What speaks against an answer that fits this schema: a model reads it as it does the question."""
    orders = filters.orders and gives_orders("\n".join(_strings(schema.schema)))
    return (Filtered("schema", ORDERS, "refused"),) if orders else ()


def screen_question(question: str, filters: FiltersConfig) -> Screened:
    """The question as it may be read, recorded and answered."""
    text, kinds = (question, ()) if filters.question == "off" else redact(question, filters.allowed)
    refused = [Filtered("question", kind, "refused") for kind in kinds if filters.question == "refuse"]
    redacted = [Filtered("question", kind, "redacted") for kind in kinds if filters.question == "redact"]
    if filters.orders and gives_orders(question):
        refused.append(Filtered("question", ORDERS, "refused"))
    return Screened(text, (*redacted, *refused))


def screen_passages(
    passages: Sequence[Passage], count: int, filters: FiltersConfig
) -> tuple[tuple[Passage, ...], tuple[Filtered, ...]]:
    """The first `count` passages that may be answered from, without private data, and what was filtered.

    One that gives orders is left out as a whole: what else it says cannot be trusted either.
    """
    kept: list[Passage] = []
    filtered: list[Filtered] = []
    for passage in passages:
        if len(kept) == count:
            break
        if not may_be_read(passage, filters):
            filtered.append(Filtered(passage.id, ORDERS, "withheld"))
        elif filters.answer == "off":
            kept.append(passage)
        else:
            clean, kinds = _redact_passage(passage, filters.allowed)
            kept.append(clean)
            filtered += [Filtered(passage.id, kind, "redacted") for kind in kinds]
    return tuple(kept), tuple(filtered)


def may_be_read(passage: Passage, filters: FiltersConfig) -> bool:
    """Whether it gives no orders to the assistant, as far as the policy cares."""
    return not (filters.orders and gives_orders("\n".join((passage.title or "", *passage.heading, passage.text))))


def screen_answer(text: str, passages: int, prompt: Sequence[Turn], filters: FiltersConfig) -> Said:
    """The answer as it may be said; without a sentence left where nothing may.

    Args:
        text: as it was generated, with the marks of citations.
        passages: number of those that it may cite.
        prompt: its turns before they were filled in.
        filters: what may not be said.
    """
    kinds: tuple[str, ...] = ()
    if filters.answer != "off":
        text, kinds = redact(text, filters.allowed)
    sentences = read_sentences(text, passages)
    private = {sentence for sentence in sentences if filters.answer == "withhold" and PLACEHOLDER.search(sentence.text)}
    own = _runs_of(prompt) if filters.prompt else set()
    repeating = {sentence for sentence in sentences if not own.isdisjoint(_runs(sentence.text))}
    action: Literal["redacted", "withheld"] = "redacted" if filters.answer == "redact" else "withheld"
    what = dict.fromkeys((*kinds, *_kinds_in(private)))
    filtered = [Filtered("answer", kind, action) for kind in what]
    filtered += [Filtered("answer", PROMPT, "withheld")] if repeating else []
    if withheld := private | repeating:
        sentences = tuple(sentence for sentence in sentences if sentence not in withheld)
        text = " ".join(map(write_sentence, sentences))
    return Said(text, sentences, tuple(filtered))


def screen_json(
    value: Any, schema: AnswerSchema, passages: int, prompt: Sequence[Turn], filters: FiltersConfig
) -> Said:
    """A structured answer as it may be said: as one sentence that rests on all passages, or none where it may not.

    Private data are taken out of its strings where what is left still fits the schema. What is found only in the whole,
    as a number or beside its key, cannot be taken out, and the whole is withheld.
    """
    kinds: dict[str, None] = {}
    clean = value if filters.answer == "off" else _redact_json(value, filters.allowed, kinds)
    text = write(clean)
    rest = () if filters.answer == "off" else redact(text, filters.allowed)[1]
    own = _runs_of(prompt) if filters.prompt else set()
    repeating = not own.isdisjoint(_runs(text) | _runs(" ".join(_strings(value))))
    private = (bool(kinds) and (filters.answer == "withhold" or not schema.fits(clean))) or bool(rest)
    action: Literal["redacted", "withheld"] = "withheld" if private else "redacted"
    filtered = [Filtered("answer", kind, action) for kind in dict.fromkeys((*kinds, *rest))]
    filtered += [Filtered("answer", PROMPT, "withheld")] if repeating else []
    if private or repeating:
        return Said("", (), tuple(filtered))
    return Said(text, (Sentence(text, tuple(range(1, passages + 1))),), tuple(filtered))


@lru_cache(4096)
def redact(text: str, allowed: tuple[str, ...] = ()) -> tuple[str, tuple[str, ...]]:
    """The text with a placeholder for each secret and piece of personal data, and their kinds."""
    found = [each for each in locate_private(text) if not _is_allowed(text[each.start : each.end], allowed)]
    parts, place = [], 0
    for start, end, kind in _joined(found):
        parts += [text[place:start], f"‹{kind.replace(' ', '_')}›"]
        place = end
    return "".join((*parts, text[place:])), tuple(dict.fromkeys(each.kind for each in found))


def _runs_of(prompt: Sequence[Turn]) -> set[tuple[str, ...]]:
    """Every run of `PROMPT_WORDS` words in the prompt's turns, their variables aside."""
    return {run for turn in prompt for part in VARIABLE.split(turn["content"]) for run in _runs(part)}


def _runs(text: str) -> set[tuple[str, ...]]:
    words = WORD.findall(text.casefold())
    return {tuple(words[place : place + PROMPT_WORDS]) for place in range(len(words) - PROMPT_WORDS + 1)}


def _redact_passage(passage: Passage, allowed: tuple[str, ...]) -> tuple[Passage, tuple[str, ...]]:
    title, *heading, text = (redact(part, allowed) for part in (passage.title or "", *passage.heading, passage.text))
    kinds = dict.fromkeys(kind for _, found in (title, *heading, text) for kind in found)
    if not kinds:
        return passage, ()
    clean = replace(passage, title=title[0] or None, heading=tuple(part for part, _ in heading), text=text[0])
    return clean, tuple(kinds)


def _redact_json(value: Any, allowed: tuple[str, ...], kinds: dict[str, None]) -> Any:
    """The value without private data, whose kinds are added to `kinds`."""
    if isinstance(value, dict):
        pairs = value.items()
        return {_redact_json(key, allowed, kinds): _redact_json(each, allowed, kinds) for key, each in pairs}
    if isinstance(value, list):
        return [_redact_json(each, allowed, kinds) for each in value]
    text, found = redact(value if isinstance(value, str) else write(value), allowed)
    kinds.update(dict.fromkeys(found))
    return text if found else value


def _strings(value: Any) -> Iterator[str]:
    """The strings in a value, without its keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(each)


def _is_allowed(found: str, allowed: tuple[str, ...]) -> bool:
    plain = "".join(found.casefold().split())
    domain = plain.partition("@")[2]
    wanted = ["".join(each.casefold().split()) for each in allowed]
    return any(plain == each or domain == each or (domain and domain.endswith(f".{each}")) for each in wanted)


def _joined(found: Sequence[Private]) -> list[tuple[int, int, str]]:
    """Places that overlap become one, of the kind that was found first."""
    joined: list[tuple[int, int, str]] = []
    for each in sorted(found, key=lambda each: (each.start, -each.end)):
        if joined and each.start < joined[-1][1]:
            start, end, kind = joined.pop()
            joined.append((start, max(end, each.end), kind))
        else:
            joined.append((each.start, each.end, each.kind))
    return joined


def _kinds_in(sentences: set[Sentence]) -> list[str]:
    found = {mark for sentence in sentences for mark in PLACEHOLDER.findall(sentence.text)}
    return [mark.replace("_", " ") for mark in sorted(found)]
