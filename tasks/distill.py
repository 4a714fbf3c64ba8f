"""Lets a stronger model ask and answer questions from the index while the money lasts; keeps what is grounded."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from prefect import task

from tasks.answering.assistant import Assistant
from tasks.answering.endpoint import EndpointGenerator
from tasks.answering.filters import screen_passages, screen_question
from tasks.answering.generators import Turn
from tasks.answering.prompting import fill, write_passages
from tasks.config.curation import CurateConfig
from tasks.config.settings import Home, find_home
from tasks.draft import Drafted, make_draft, topic_of
from tasks.errors import ModelError
from tasks.evaluation.golden import GoldenQuery
from tasks.evaluation.releases import grounded
from tasks.evaluation.stages import is_right, support
from tasks.index.search import Filters
from tasks.journal import Journal
from tasks.paying import BYTES_A_TOKEN, Call, PayingGenerator, SpentError, size_of
from tasks.progress import progress
from tasks.records import Answer, Passage
from tasks.registry.connection import connect
from tasks.registry.versions import pin
from tasks.releases import open_reading

NO_QUESTION = "the model drafted no question from the passage"
REFUSED = "the release would refuse the question that the model drafted"
CUT = "the model's answer has no end: raise distill.max_new_tokens"
ELSEWHERE = "the model's answer does not cite the document that the question is from"
UNGROUNDED = "the model's answer has sentences that cite nothing"
UNSUPPORTED = "too few of the words of the model's answer stand in what it cites (distill.min_support)"
QUESTION_WORDS = range(3, 61)


@dataclass(frozen=True, slots=True)
class Distilled:
    """Rows, or why there are none, and what they cost."""

    drafted: tuple[Drafted, ...] = ()
    reasons: tuple[str, ...] = ()
    """Sentences: the estimate, what was spent, and what stopped it."""
    spent: float = 0.0
    """Over all runs."""


@task(name="distill", task_run_name="distill {config.name}")
def distill(config: CurateConfig) -> Distilled:
    """Examples by the model, until they are enough or the money is spent; what was answered before costs nothing.

    Raises RegistryError where no version of the release is live.
    """
    if not config.distill.questions:
        return Distilled()
    home = find_home()
    pinned = pin(connect(home), f"{config.release}@champion")
    assistant = open_reading(pinned, home)
    model = PayingGenerator(EndpointGenerator(config.distill), config.distill, journal_of(config.name, home))
    passages = choose_passages(assistant, config)
    reasons = [_estimate(model, passages, assistant, config)]
    drafted: list[Drafted] = []
    try:
        with progress("distill", config.name, len(passages)) as advance:
            for passage in passages:
                drafted.append(_one(passage, assistant, model, config, pinned))
                advance(1)
    except (SpentError, ModelError) as error:
        reasons.append(f"Distillation stopped after {len(drafted)} of {len(passages)} passages: {error}.")
    reasons.append(
        f"{model.calls} calls were made, and {model.spent:.4f} of {config.distill.max_cost:.4f} is spent over all runs."
    )
    return Distilled(tuple(drafted), tuple(reasons), model.spent)


def journal_of(name: str, home: Home) -> Journal[Call]:
    """What was asked and paid for."""
    return Journal(home.data / "curation" / name / "calls.jsonl", Call)


def choose_passages(assistant: Assistant, config: CurateConfig) -> list[Passage]:
    """Passages in an order that is at random and always the same, a second one of a document after a first of each."""
    of: dict[str, list[str]] = defaultdict(list)
    rows = assistant.reader.store.rows(["id", "document"], "ordinal >= 0").to_pylist()
    for row in sorted(rows, key=lambda row: sha256(f"{config.name} {row['id']}".encode()).hexdigest()):
        of[row["document"]].append(row["id"])
    turns = [(place, ids[place]) for ids in of.values() for place in range(len(ids))]
    chosen = [row for _, row in sorted(turns, key=lambda turn: turn[0])][: config.distill.questions]
    found = {passage.id: passage for passage in assistant.reader.read(chosen)}
    return [found[row] for row in chosen]


def _one(passage: Passage, assistant: Assistant, model: PayingGenerator, config: CurateConfig, pinned: str) -> Drafted:
    policy = assistant.policy
    filters = policy.filters.model_copy(update={"answer": "redact", "question": "refuse"})
    clean, _ = screen_passages([passage], 1, filters)
    if not clean:
        return NO_QUESTION
    question = " ".join(model.answer("", clean, _turns(config.distill.instruction, clean)).text.split())
    if len(question.split()) not in QUESTION_WORDS or screen_question(question, filters).refusal:
        return NO_QUESTION
    # what contradicts other sources is shown by the release itself
    asked = replace(
        assistant, generator=model, policy=policy.model_copy(update={"filters": filters, "conflicts": False})
    )
    found = assistant.search(question, Filters(tenant=passage.tenant)).passages
    answer = asked.answer_from(question, found)
    if reason := _against(answer, passage, config.distill.min_support):
        return reason
    return make_draft(
        "sft",
        "distillation",
        question=question,
        answer=answer.text,
        prompt=tuple(fill(assistant.prompt, question, answer.passages)),
        tenant=passage.tenant or "",
        topic=topic_of(answer.text, answer.passages),
        release=pinned,
    )


def _against(answer: Answer, passage: Passage, min_support: float) -> str:
    """Why the answer is not kept, by the checks of an evaluation; empty where it is."""
    if answer.refused:
        return REFUSED
    if answer.cut:
        return CUT
    if answer.filtered and any(each.where == "answer" for each in answer.filtered):
        return "the model's answer holds what the release may not say"
    if grounded(answer) < 1:
        return UNGROUNDED
    if not is_right(answer, GoldenQuery(answer.question, (passage.document,))):
        return ELSEWHERE
    return UNSUPPORTED if support(answer) < min_support else ""


def _turns(instruction: str, passages: Sequence[Passage]) -> list[Turn]:
    return [{"role": "system", "content": instruction}, {"role": "user", "content": write_passages(passages)}]


def _estimate(model: PayingGenerator, passages: Sequence[Passage], assistant: Assistant, config: CurateConfig) -> str:
    """What all would cost, if every answer were as long as it may be."""
    sizes = list(_sizes(passages, assistant, config.distill.instruction))
    cost = sum(model.cost(size / BYTES_A_TOKEN, config.distill.max_new_tokens) for size in sizes)
    left = max(0.0, config.distill.max_cost - model.spent)
    enough = "which is left" if cost <= left else f"of which {left:.4f} is left: it stops when that is spent"
    return (
        f"Distillation of {len(passages)} passages takes {len(sizes)} calls and about {cost:.4f}, {enough}; what was "
        "answered before costs nothing."
    )


def _sizes(passages: Sequence[Passage], assistant: Assistant, instruction: str) -> Iterator[int]:
    """Bytes that the model reads, by call: one passage for a question; for an answer as many as the release reads."""
    usual = sum(len(passage.text.encode()) for passage in passages) // max(1, len(passages))
    prompt = sum(map(size_of, assistant.prompt)) + usual * assistant.policy.passages
    for passage in passages:
        yield size_of({"content": instruction}) + len(passage.text.encode())
        yield prompt
