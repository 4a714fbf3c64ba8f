"""How likely a model finds given tokens, and what it answers; in batches of similar length."""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch

from tasks.training.chat import exchange, prompt_tokens, read_answer, stop_tokens
from tasks.training.constrained import Constrained

Turn = dict[str, str]
Tokens = list[int]
ROWS_TOKENS = 8192
"""Tokens of a batch, padding included."""
WORTH_KEEPING = 32
"""Tokens that all rows begin with, from which on they are read once for all."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """Tokens, and from where on they count."""

    tokens: Tokens
    start: int


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and what it took."""

    text: str
    confidence: float
    """Geometric mean of the probabilities of its tokens, that of its end included."""
    tokens_in: int
    tokens_out: int
    cut: bool = False
    """Whether it has no end, because it may not be longer."""


def continuation(tokenizer: Any, turns: Sequence[Turn], max_length: int) -> Continuation:
    """A conversation whose last answer counts, its end-of-turn token included; too long a one loses its beginning.

    Raises ModelError where the answer does not continue the prompt.
    """
    prompt, answer = exchange(tokenizer, turns)
    cut = max(len(prompt) + len(answer) - max_length, 0)
    return Continuation([*prompt, *answer][cut:], max(len(prompt) - cut, 0))


def a_token(likelihood: tuple[float, int]) -> float:
    """The log-likelihood a token; NaN where no token counts, which passes no gate."""
    total, count = likelihood
    return total / count if count else math.nan


@torch.inference_mode()
def likelihoods(model: Any, rows: Sequence[Continuation]) -> list[tuple[float, int]]:
    """For each row the log-likelihood of the tokens that count, in nats, and their number."""
    found: list[tuple[float, int]] = [(0.0, 0)] * len(rows)
    for places in _batches([len(row.tokens) for row in rows]):
        batch = [rows[place] for place in places]
        width = max(len(row.tokens) for row in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        counts = torch.zeros((len(batch), width), dtype=torch.bool)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for line, row in enumerate(batch):
            ids[line, : len(row.tokens)] = torch.tensor(row.tokens)
            mask[line, : len(row.tokens)] = 1
            counts[line, max(row.start, 1) : len(row.tokens)] = True
        ids, mask, counts = (tensor.to(model.device) for tensor in (ids, mask, counts))
        counts = counts[:, 1:]
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        nats = torch.zeros_like(counts, dtype=torch.float)
        nats[counts] = -torch.nn.functional.cross_entropy(logits[counts].float(), ids[:, 1:][counts], reduction="none")
        sums, numbers = nats.sum(1), counts.sum(1)
        for place, total, number in zip(places, sums.tolist(), numbers.tolist(), strict=True):
            found[place] = (total, number)
    return found


def answers(model: Any, tokenizer: Any, prompts: Sequence[Sequence[Turn]], max_new_tokens: int) -> list[str]:
    """The likeliest answer to each conversation, chosen token by token."""
    return [said.text for said in say(model, tokenizer, prompts, max_new_tokens)]


@torch.inference_mode()
def say(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[Turn]], max_new_tokens: int, grammar: str = ""
) -> list[Said]:
    """The likeliest answer to each conversation, chosen token by token, with how sure the model is of it.

    With a `grammar`, chosen among the tokens that it allows. Raises ModelError where the chat template refuses a
    conversation, or the grammar's library does not know the tokenizer.
    """
    rendered = [prompt_tokens(tokenizer, turns) for turns in prompts]
    stops = stop_tokens(tokenizer, model)
    found = [Said("", 0.0, 0, 0)] * len(prompts)
    read, seen = _read_beginning(model, rendered)
    for places in _batches([len(tokens) + max_new_tokens for tokens in rendered]):
        rests = {"input_ids": [rendered[place][seen:] for place in places]}
        batch = tokenizer.pad(rests, padding_side="left", return_tensors="pt")
        beginning = torch.tensor([rendered[0][:seen]] * len(places), dtype=torch.long)
        batch["input_ids"] = torch.cat([beginning, batch["input_ids"]], dim=1)
        batch["attention_mask"] = torch.cat([torch.ones_like(beginning), batch["attention_mask"]], dim=1)
        chosen = _Chosen()
        made = model.generate(
            **batch.to(model.device),
            logits_processor=[*([Constrained(tokenizer, grammar, len(places), stops)] if grammar else []), chosen],
            past_key_values=_for_each(read, len(places)),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=stops,
        )
        written = made[:, batch["input_ids"].shape[1] :]
        ends = torch.isin(written, torch.tensor(stops, device=written.device))
        ended = ends.cumsum(1)
        counts = (ended == 0) | ((ended == 1) & ends)
        means = (torch.stack(chosen.nats, dim=1) * counts).sum(1) / counts.sum(1)
        cut = (ended[:, -1] == 0).tolist()
        for line, place in enumerate(places):
            text = read_answer(tokenizer, rendered[place], written[line][ended[line] == 0].tolist())
            confidence, count = math.exp(means[line].item()), int(counts[line].sum())
            found[place] = Said(text, confidence, len(rendered[place]), count, cut[line])
    return found


class _Chosen:
    """Notes the log-probability of each token that is chosen, which is the likeliest."""

    def __init__(self) -> None:
        self.nats: list[torch.Tensor] = []

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.nats.append(scores.float().log_softmax(-1).amax(-1))
        return scores


def _read_beginning(model: Any, rows: Sequence[Tokens]) -> tuple[Any, int]:
    """What the model remembers of the tokens that all rows begin with, such as examples, and how many these are."""
    together = zip(*(row[:-1] for row in rows), strict=False)
    shared = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, together))
    able = _may_pad_between(model) and model._supports_logits_to_keep()
    if len(rows) == 1 or shared < WORTH_KEEPING or not able:
        return None, 0
    tokens = torch.tensor([rows[0][:shared]], device=model.device)
    return model(input_ids=tokens, use_cache=True, logits_to_keep=1).past_key_values, shared


def _may_pad_between(model: Any) -> bool:
    """Whether padding between a beginning and the rest is passed over: in windows and recurrent states it counts."""
    kinds = set(getattr(model.config, "layer_types", None) or ())
    return kinds <= {"full_attention"} and not getattr(model.config, "sliding_window", None) and not model._is_stateful


def _for_each(read: Any, rows: int) -> Any:
    """A copy of what the model remembers for each of some rows."""
    if read is None:
        return None
    copy = deepcopy(read)
    copy.batch_repeat_interleave(rows)
    return copy


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of rows of similar length, as many as fit into `ROWS_TOKENS`."""
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    batch: list[int] = []
    for place in order:
        if batch and (len(batch) + 1) * lengths[place] > ROWS_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
