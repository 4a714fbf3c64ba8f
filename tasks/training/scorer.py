"""A scoring process: ``python -m tasks.training.scorer JOB_FILE``. Every adapter is tried on one loaded base model."""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import ModelError, TandemError
from tasks.training.general import read_general_choices, read_general_text
from tasks.training.job import EventWriter
from tasks.training.process import begin
from tasks.training.scoring_job import BASE, BASE_WITH_EXAMPLES, Scored, ScoredAll, ScoringJob
from tasks.training.worker import is_out_of_memory

if TYPE_CHECKING:
    from tasks.training.speed import Speed

Turn = dict[str, str]
Use = Callable[[], AbstractContextManager[None]]


def main(file: Path) -> int:
    """Run the job; its end is an event. Returns the exit status."""
    job = ScoringJob.read(file)
    begin(job)
    events = EventWriter(job.folder)
    try:
        score(job, events).save(job.folder)
        events.write("done")
    except TandemError as error:
        events.write("failed", reason=str(error))
        return 1
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        events.write("failed", reason="there is not enough memory to score: lower scoring.max_new_tokens or max_length")
        return 1
    return 0


def score(job: ScoringJob, events: EventWriter) -> ScoredAll:
    """Answers, likelihoods and general ability of every contender."""
    import pyarrow.parquet as pq

    from tasks.training.base import fetch_base, load_base, load_tokenizer
    from tasks.training.speed import choose_speed, dtype_of

    folder = fetch_base(job.base)
    speed = choose_speed(job.machine, folder)
    tokenizer = load_tokenizer(folder)
    model = load_base(folder, dtype_of(speed.precision), four_bit=job.base.four_bit)
    rows = pq.read_table(job.held_out).to_pylist()
    model, users = _with_adapters(model, job.adapters)
    model.eval()

    def try_one(name: str) -> Scored:
        if name == BASE_WITH_EXAMPLES:
            return _score_rows(model, tokenizer, job, rows, _examples(job))
        return _with_general(model, tokenizer, job, _score_rows(model, tokenizer, job, rows, []))

    names = [*users, *([BASE_WITH_EXAMPLES] if job.scoring.examples else [])]
    events.write("begin", step=0, steps=len(names))
    contenders = {}
    for name in names:
        with users.get(name, users[BASE])():
            contenders[name] = _once(job, name, speed, try_one)
        events.write("step", step=len(contenders))
    return ScoredAll(
        ids=[row["id"] for row in rows],
        labels=[row["label"] for row in rows],
        references=[_conversation(row)[-1]["content"] for row in rows],
        contenders=contenders,
    )


def _once(job: ScoringJob, name: str, speed: "Speed", try_one: Callable[[str], Scored]) -> Scored:
    """What a contender does, or did when it was asked the same before."""
    import torch

    from tasks.training.kept import find, keep, key_of

    if job.kept is None or job.scoring.suites:
        return try_one(name)
    device = torch.cuda.get_device_name() if speed.on_gpu else "cpu"
    key = key_of(job, job.adapters.get(name), name == BASE_WITH_EXAMPLES, device, speed.precision)
    found = find(job.kept, key)
    if found is None:
        found = try_one(name)
        keep(job.kept, key, found)
    return found


def _score_rows(
    model: Any, tokenizer: Any, job: ScoringJob, rows: list[dict[str, Any]], examples: list[Sequence[Turn]]
) -> Scored:
    """What it does on the held-out rows, each after the examples."""
    from tasks.training.likelihood import Continuation, a_token, answers, continuation, likelihoods

    most = job.max_length * (1 + len(examples))

    def behind_examples(turns: Sequence[Turn]) -> Continuation:
        """Of an answer that is cut without them, the same tokens count."""
        alone = continuation(tokenizer, turns, job.max_length)
        if not examples:
            return alone
        shown = continuation(tokenizer, _with_examples(turns, examples), most)
        # alone, nothing foretells the first token
        return Continuation(shown.tokens, len(shown.tokens) - len(alone.tokens) + max(alone.start, 1))

    def found(turns: Sequence[Sequence[Turn]]) -> list[tuple[float, int]]:
        return likelihoods(model, [behind_examples(each) for each in turns])

    conversations = [_conversation(row) for row in rows]
    asked = conversations[: job.scoring.max_rows] if job.scoring.scores else []
    chosen = found(conversations)
    rejected = found([row["prompt"] + row["rejected"] for row in rows]) if "rejected" in rows[0] else []
    prompts = [_with_examples(turns, examples)[:-1] for turns in asked]
    return Scored(
        answers=answers(model, tokenizer, prompts, job.scoring.max_new_tokens),
        nats=[-a_token(each) for each in chosen],
        tokens=[count for _, count in chosen],
        margins=[yes[0] - no[0] for yes, no in zip(chosen, rejected, strict=True)] if rejected else [],
    )


def _with_general(model: Any, tokenizer: Any, job: ScoringJob, scored: Scored) -> Scored:
    """And what it does where it is not about the task."""
    from tasks.training.likelihood import Continuation, a_token, likelihoods

    texts = [item["text"] for item in read_general_text(job.scoring)]
    general = likelihoods(model, [Continuation(tokenizer(text)["input_ids"][: job.max_length], 1) for text in texts])
    return replace(
        scored,
        general_nats=[-a_token(each) for each in general],
        general_tokens=[count for _, count in general],
        general_right=_choose(model, tokenizer, job),
        suites=_run_suites(model, tokenizer, job),
    )


def _choose(model: Any, tokenizer: Any, job: ScoringJob) -> list[bool]:
    """Whether the choice with the highest likelihood a token is the answer."""
    from tasks.training.likelihood import Continuation, a_token, likelihoods

    items = read_general_choices(job.scoring)
    asked = [
        Continuation(tokenizer(item["question"] + choice)["input_ids"], len(tokenizer(item["question"])["input_ids"]))
        for item in items
        for choice in item["choices"]
    ]
    found = iter(likelihoods(model, asked))
    right = []
    for item in items:
        likely = {choice: a_token(next(found)) for choice in item["choices"]}
        right.append(max(likely, key=likely.__getitem__) == item["answer"])
    return right


def _run_suites(model: Any, tokenizer: Any, job: ScoringJob) -> dict[str, list[float]]:
    if not job.scoring.suites:
        return {}
    from tasks.training.suites import run_suites

    scoring = job.scoring
    return run_suites(model, tokenizer, scoring.suites, scoring.suites_folder, scoring.suite_rows)


def _with_adapters(model: Any, adapters: dict[str, Path]) -> tuple[Any, dict[str, Use]]:
    """The model with all adapters loaded, and for each contender the block in which it is that contender."""
    from peft import PeftModel

    for name, folder in adapters.items():
        try:
            if isinstance(model, PeftModel):
                model.load_adapter(folder, adapter_name=name)
            else:
                model = PeftModel.from_pretrained(model, folder, adapter_name=name)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"the adapter of the {name} in {folder} does not fit the base model: {error}") from error

    @contextmanager
    def adapted(name: str) -> Iterator[None]:
        model.set_adapter(name)
        yield

    users: dict[str, Use] = {BASE: model.disable_adapter}
    return model, users | {name: lambda name=name: adapted(name) for name in adapters}


def _examples(job: ScoringJob) -> list[Sequence[Turn]]:
    import pyarrow.parquet as pq

    rows = pq.read_table(job.train).to_pylist()
    return [_conversation(row) for row in random.Random(job.seed).sample(rows, min(job.scoring.examples, len(rows)))]


def _conversation(row: dict[str, Any]) -> list[Turn]:
    """With the answer that is right, or preferred."""
    return row["messages"] if "messages" in row else row["prompt"] + row["chosen"]


def _with_examples(turns: Sequence[Turn], examples: Sequence[Sequence[Turn]]) -> list[Turn]:
    """The conversation with the examples as earlier turns, behind its own system turn."""
    system = [turn for turn in turns[:1] if turn["role"] == "system"]
    shown = [turn for example in examples for turn in example if turn["role"] != "system"]
    return [*system, *shown, *turns[len(system) :]]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
