"""How a model's chat template writes a conversation: prompts, the answers that continue them, and where these end.

Training, scoring and the service all write by these functions, so that a model answers the prompts it was trained on.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from tasks.errors import ModelError

Turn = dict[str, str]
Tokens = list[int]

MARK = "0f3c9a"
"""Stands for the content of a turn where only what is around it is looked at."""
SHOWN = 80
"""Letters of a conversation in a message."""
THOUGHT = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)
"""A thought that is closed, at the beginning of an answer: no part of it."""
EMPTY_THOUGHT = re.compile(r"\A\s*<think>\s*</think>\s*")
LEAD = re.compile(r"\s*(<think>\s*)?(</think>\s*)?")
"""What may stand between a prompt and the answer: an empty thought, or the end of one that the prompt opens."""
TAIL = 8
"""Tokens at the end of a prompt among which an opened thought would be."""


def prompt_tokens(tokenizer: Any, turns: Sequence[Turn]) -> Tokens:
    """A conversation up to where the model is to answer.

    Raises ModelError where the template refuses it.
    """
    return _encode(tokenizer, _render(tokenizer, _fitted(tokenizer, turns), asks=True))


def exchange(tokenizer: Any, turns: Sequence[Turn]) -> tuple[Tokens, Tokens]:
    """The prompt of a conversation's last answer, and the answer with the token that ends it.

    Raises ModelError where the template refuses the conversation, or the answer would not continue the prompt or would
    end early.
    """
    turns = _fitted(tokenizer, turns)
    content = turns[-1]["content"].strip()
    prompt, whole = _render(tokenizer, turns[:-1], asks=True), _render(tokenizer, turns, asks=False)
    lead, found, _ = whole.removeprefix(prompt).partition(content)
    if not (whole.startswith(prompt) and found and LEAD.fullmatch(lead)):
        raise ModelError("an answer does not continue the prompt, or not as it stands in the row")
    ends = turn_ends(tokenizer)
    if inside := [text for text in tokenizer.convert_ids_to_tokens(ends) if text in content]:
        raise ModelError(f"in an answer stands {inside[0]}, with which an answer ends")
    before, after = _encode_both(tokenizer, prompt, whole)
    if until := next((place for place, token in enumerate(after, start=1) if token in ends), None):
        return before, after[:until]
    return before, [*_encode_both(tokenizer, prompt, prompt + lead + content)[1], ends[-1]]


def lessons(tokenizer: Any, turns: Sequence[Turn]) -> list[tuple[Tokens, list[bool]]]:
    """The sequences that teach every answer of a conversation, and which of their tokens belong to answers.

    It is one sequence, unless the template writes an answer differently once another turn follows: then each answer
    behind its own prompt is a sequence of its own.

    Raises ModelError as `exchange` does.
    """
    found: list[tuple[Tokens, list[bool]]] = []
    for place, turn in enumerate(turns, start=1):
        if turn["role"] != "assistant":
            continue
        prompt, answer = exchange(tokenizer, turns[:place])
        taught = [False] * len(prompt)
        if found and prompt[: len(found[-1][0])] == found[-1][0]:
            earlier = found.pop()[1]
            taught[: len(earlier)] = earlier
        found.append((prompt + answer, taught + [True] * len(answer)))
    return found


def find_unwritable(tokenizer: Any, turns: Sequence[Turn]) -> str:
    """Why a conversation cannot be trained on, as what follows "the row"; empty, if it can."""
    try:
        lessons(tokenizer, turns)
    except ModelError as error:
        return f"cannot be written by the chat template of the base model: {error}"
    return ""


def check_template(tokenizer: Any) -> None:
    """Raises ModelError where the answers that the template writes continue no prompt of its own."""
    asked, whole = [_says("user", MARK)], [_says("user", MARK), _says("assistant", MARK)]
    try:
        exchange(tokenizer, whole)
    except ModelError as error:
        raise ModelError(
            f"the chat template of the base model cannot be trained on: a prompt is {_shown(tokenizer, asked, True)}, "
            f"and with its answer {_shown(tokenizer, whole, False)} ({error}); take another base model"
        ) from error


def stop_tokens(tokenizer: Any, model: Any) -> Tokens:
    """Tokens each of which ends an answer: those of `turn_ends`, and those of the model's generation_config."""
    configured = model.generation_config.eos_token_id
    more = configured if isinstance(configured, list) else [] if configured is None else [configured]
    return list(dict.fromkeys([*turn_ends(tokenizer), *more]))


def turn_ends(tokenizer: Any) -> Tokens:
    """The token with which the template ends an answer, if it does so with one, and the tokenizer's end of sequence.

    Raises ModelError where there is neither.
    """
    return list(_turn_ends(tokenizer, str(tokenizer.chat_template)))


def read_answer(tokenizer: Any, prompt: Tokens, written: Tokens) -> str:
    """The text of what a model wrote before a token that ended it, without what it thought first."""
    text = tokenizer.decode(written, skip_special_tokens=True)
    if tokenizer.decode(prompt[-TAIL:]).rstrip().endswith("<think>"):
        text = f"<think>{text}"
    return THOUGHT.sub("", text, count=1)


def knows_system(tokenizer: Any) -> bool:
    """Whether the template writes a system turn: some refuse it, and some leave it out."""
    return _knows_system(tokenizer, str(tokenizer.chat_template))


def _fitted(tokenizer: Any, turns: Sequence[Turn]) -> list[Turn]:
    """With the system turn in front of the first user's where the template knows none, as Gemma 3's own writes it."""
    if len(turns) < 2 or turns[0]["role"] != "system" or knows_system(tokenizer):
        return list(turns)
    system, first, *rest = turns
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def _render(tokenizer: Any, turns: Sequence[Turn], *, asks: bool) -> str:
    """Without thinking, so that a template with a switch for it puts the empty thought into the prompt."""
    try:
        return tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=asks, enable_thinking=False
        )
    except (TemplateError, TypeError) as error:
        raise ModelError(f"the chat template of the base model refuses a conversation ({error})") from error


def _encode(tokenizer: Any, text: str) -> Tokens:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _encode_both(tokenizer: Any, prompt: str, whole: str) -> tuple[Tokens, Tokens]:
    """The prompt, and what follows it: by itself where else tokens would merge over the end of the prompt."""
    before, both = _encode(tokenizer, prompt), _encode(tokenizer, whole)
    if both[: len(before)] == before:
        return before, both[len(before) :]
    return before, _encode(tokenizer, whole.removeprefix(prompt))


def _shown(tokenizer: Any, turns: Sequence[Turn], asks: bool) -> str:
    """The end of a made-up conversation, as the template writes it."""
    try:
        return repr(_render(tokenizer, turns, asks=asks)[-SHOWN:])
    except ModelError:
        return "refused"


@lru_cache(8)
def _turn_ends(tokenizer: Any, template: str) -> tuple[int, ...]:
    shown = _render(tokenizer, [_says("user", MARK), _says("assistant", MARK)], asks=False)
    added = set(tokenizer.get_added_vocab().values())
    after = [token for token in _encode(tokenizer, shown.rpartition(MARK)[2]) if token in added]
    ends = tuple(dict.fromkeys(token for token in (*after[:1], tokenizer.eos_token_id) if token is not None))
    if shown.count(MARK) < 2 or not ends:
        raise ModelError("the base model's chat template writes no answers, or no token ends them: take another model")
    return ends


@lru_cache(8)
def _knows_system(tokenizer: Any, template: str) -> bool:
    try:
        return MARK in _render(tokenizer, [_says("system", MARK), _says("user", "?")], asks=True)
    except ModelError:
        return False


def _says(role: str, content: str) -> Turn:
    return {"role": role, "content": content}
