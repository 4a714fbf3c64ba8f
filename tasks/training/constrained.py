"""Keeps a model to a grammar while it writes: of the next tokens only those are left that can go on."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from tasks.errors import ModelError

if TYPE_CHECKING:
    from llguidance import LLTokenizer


class Constrained:
    """A processor of logits for one call of `generate`, whose rows all follow one grammar of llguidance."""

    def __init__(self, tokenizer: Any, grammar: str, rows: int, stops: Sequence[int]) -> None:
        """Where the grammar allows an end, each of `stops` is one.

        Raises ModelError where llguidance does not know such a tokenizer.
        """
        from llguidance import LLMatcher

        known = tuple(token for token in stops if token < len(tokenizer))
        self._matchers = [LLMatcher(_vocabulary(tokenizer, known), grammar) for _ in range(rows)]
        self._begun = False

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._begun:
            for matcher, token in zip(self._matchers, ids[:, -1].tolist(), strict=True):
                if not matcher.is_stopped():  # what follows the end is padding
                    matcher.consume_token(token)
        self._begun = True
        allowed = torch.zeros(scores.shape, dtype=torch.bool)
        for row, matcher in enumerate(self._matchers):
            bias = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8)
            allowed[row, : len(bias)] = bias > 0  # a model may have more tokens than its tokenizer, for a round number
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)


@lru_cache(4)  # one takes up to a second
def _vocabulary(tokenizer: Any, stops: tuple[int, ...]) -> "LLTokenizer":
    from llguidance.hf import from_tokenizer

    try:
        return from_tokenizer(tokenizer, eos_token=list(stops))
    except ValueError as error:
        raise ModelError(f"this model cannot be kept to a schema: take one with a fast tokenizer ({error})") from error
