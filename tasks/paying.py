"""Asks a model that costs money: never the same twice, and never for more than may be spent."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from tasks.answering.generators import Generator, Turn
from tasks.answering.structured import AnswerSchema
from tasks.config.curation import DistillConfig
from tasks.errors import RefusedError
from tasks.journal import Journal
from tasks.records import Generated, Passage

BYTES_A_TOKEN = 4
"""About, of English text; never less than one."""
TURN_TOKENS = 16
"""More than a chat template adds to a turn."""
MILLION = 1e6


class SpentError(RefusedError):
    """The next call might cost more than is left."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call, before it is made with the most that it may cost, and afterwards with what it did cost."""

    id: str
    asked: str
    """Hash over model and turns."""
    cost: float
    text: str | None = None
    """None where no answer came back: it may have cost money all the same."""
    tokens_in: int = 0
    tokens_out: int = 0
    cut: bool = False


class PayingGenerator:
    """Another generator, with a purse. What was answered once is answered again for nothing."""

    def __init__(self, inner: Generator, config: DistillConfig, journal: Journal[Call]) -> None:
        self._inner, self._config, self._journal = inner, config, journal
        calls = {call.id: call for call in journal.read()}
        self.spent = sum(call.cost for call in calls.values())
        """Over all runs; a call without an answer counts with the most that it may have cost."""
        self.calls = 0
        """Made by this one."""
        self._known = {call.asked: call for call in calls.values() if call.text is not None}

    def answer(
        self, question: str, passages: Sequence[Passage], turns: Sequence[Turn], schema: AnswerSchema | None = None
    ) -> Generated:
        """Raises SpentError before a call that might cost more than is left, and whatever the other one raises."""
        config = self._config
        asked = sha256(json.dumps([config.model, config.max_new_tokens, list(turns)]).encode()).hexdigest()
        if known := self._known.get(asked):
            return Generated(known.text or "", known.tokens_in, known.tokens_out, cut=known.cut)
        most = self.cost(sum(size_of(turn) + TURN_TOKENS for turn in turns), config.max_new_tokens)
        if self.spent + most > config.max_cost:
            raise SpentError(
                f"{self.spent:.4f} of {config.max_cost:.4f} are spent, and the next call may cost {most:.4f}: raise "
                "distill.max_cost to go on"
            )
        before = Call(uuid.uuid4().hex, asked, most)
        self._journal.add([before])
        self.spent += most
        made = self._inner.answer(question, passages, turns, schema)
        tokens = made.tokens_in + made.tokens_out
        cost = self.cost(made.tokens_in, made.tokens_out) if tokens else most  # an endpoint need not tell
        done = Call(before.id, asked, cost, made.text, made.tokens_in, made.tokens_out, made.cut)
        self._journal.add([done])
        self._known[asked] = done
        self.spent += cost - most
        self.calls += 1
        return made

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """In the currency of the prices."""
        return (tokens_in * self._config.price_in + tokens_out * self._config.price_out) / MILLION


def size_of(turn: Turn) -> int:
    """Bytes of a turn's text, which no tokenizer makes more tokens of."""
    return len(turn["content"].encode("utf-8", "surrogatepass"))
