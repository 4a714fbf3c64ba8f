"""Fine-tuning beside TRL as it comes: tokens a second, loss curves, share of the matrix rate; and what a flow adds.

    python -m tests.benchmarks.training [--device cpu|cuda] [--shape tiny|7b|small] [--quick]

The sides take turns, each in a process of its own, over the same rows in the same order. On a CPU the model is the
project's tiny base and the rows are its support messages; on a GPU it is a 7B-shaped model of random weights, with
fewer layers where the memory is small. `--shape small --device cpu` runs on a CPU what is otherwise for a GPU.

On a CPU, TRL also trains in fp32: its default of bf16 is slow where the processor has no such arithmetic, and that is
no merit of ours.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tasks.config.training import BaseModelConfig, DpoConfig, SftConfig
from tasks.training.base import load_tokenizer
from tasks.training.job import TrainingJob
from tasks.training.process import speedy
from tests.benchmarks.installation import new_home
from tests.benchmarks.reporting import save, table

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "data" / "models" / "tiny"
SUPPORT = ROOT / "data" / "samples" / "support"
OURS, ONCE = "tandem", "trl-briefly"
SIDES = {"cpu": (ONCE, "trl-fp32", OURS), "cuda": ("trl", OURS)}
"""TRL's default on a CPU trains a few steps in the first round: emulated bf16 may take half a minute a step."""
WARM_UP = 2
"""Steps that are left out: kernels are chosen and compiled in them."""
SHAPES = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "small": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}
VOCABULARY = {"7b": 32_000, "small": 4096}
WIDTH = {"7b": 4096, "small": 128}
"""Longest row, in tokens."""
WHOLE_MODEL_GB = 100
"""GPU memory in which TRL's defaults hold all 32 layers in fp32; with less there are fewer layers."""
ROWS_AT_ONCE = 4
TEN_THOUSAND = {"7b": (10_000, 500), "small": (64, 16)}
"""Rows of the epoch that is timed whole, and their tokens, about."""

Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: steps of each run, and how often both sides take their turn."""

    steps: int
    rounds: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", choices=("tiny", *SHAPES), help="tiny on a CPU, 7b on a GPU, if not given")
    parser.add_argument("--quick", action="store_true", help="one round of few steps, and no whole epoch")
    parser.add_argument("--only", help="a name of a comparison, or epoch")
    args = parser.parse_args()
    shape = args.shape or ("7b" if args.device == "cuda" else "tiny")
    plan = Plan(8, 1) if args.quick else Plan(16, 5) if shape == "tiny" else Plan(12, 2)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        new_home(folder / "home")
        jobs = tiny_jobs(folder, plan) if shape == "tiny" else large_jobs(folder, shape, plan)
        runs = {name: in_turns(name, job, plan, args.device) for name, job in jobs.items() if args.only in (None, name)}
        result: dict[str, Any] = {"device": device_name(), "shape": shape, "plan": [plan.steps, plan.rounds]}
        result |= {"comparisons": {name: compare(found) for name, found in runs.items()}, "runs": runs}
        if shape != "tiny" and args.only in (None, "epoch") and not args.quick:
            result["epoch"] = whole_epoch(folder, shape)
    save(f"training_{shape}", f"Fine-tuning beside TRL's defaults, {result['device']}", result, tables(result))


def device_name() -> str:
    if not torch.cuda.is_available():
        return "CPU"
    card = torch.cuda.get_device_properties(0)
    return f"{card.name}, {card.total_memory / 2**30:.0f} GB, CUDA {torch.version.cuda}"


def tiny_jobs(folder: Path, plan: Plan) -> dict[str, TrainingJob]:
    """The demo's two trainings: its rows, and the settings of conf/."""
    rows = [turns(row["message"], row["answer"]) for row in lines(SUPPORT / "train.jsonl")]
    pairs = [pair(row["prompt"], row["chosen"], row["rejected"]) for row in lines(SUPPORT / "pairs.jsonl")]
    settings = {"rows_at_once": 16, "batch_rows": 16, "max_length": 256}
    return {
        "sft": sft_job(folder / "sft", TINY, rows, plan.steps, settings | {"learning_rate": 3e-3, "packing": False}),
        "dpo": dpo_job(folder / "dpo", TINY, pairs, plan.steps, settings | {"learning_rate": 5e-4}),
    }


def large_jobs(folder: Path, shape: str, plan: Plan) -> dict[str, TrainingJob]:
    """Rows of mixed lengths, as conversations have them; rows of the full length; pairs of mixed lengths."""
    model = make_model(folder / "model", shape)
    write, width, count = Writer(), WIDTH[shape], plan.steps * 16
    settings = {"rows_at_once": ROWS_AT_ONCE, "batch_rows": 16, "max_length": width, "learning_rate": 2e-4}
    mixed = [turns(*write.texts(write.length(width), 0.3)) for _ in range(count)]
    full = [turns(*write.texts(width + 64, 0.3)) for _ in range(count)]
    pairs = [write.pair(write.length(width)) for _ in range(count)]
    sft = settings | {"packing": False}
    return {
        "sft, mixed lengths": sft_job(folder / "mixed", model, mixed, plan.steps, sft),
        "sft, full length": sft_job(folder / "full", model, full, plan.steps, sft | {"rows_at_once": 2}),
        "dpo, mixed lengths": dpo_job(folder / "pairs", model, pairs, plan.steps, settings | {"rows_at_once": 2}),
    }


def make_model(folder: Path, shape: str) -> Path:
    """A Llama of random weights in bf16, with the tiny base's tokenizer; returns its folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    values = dict(SHAPES[shape])
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        values["num_hidden_layers"] = math.ceil(values["num_hidden_layers"] * min(1, memory / WHOLE_MODEL_GB))
    tokenizer = load_tokenizer(TINY)
    config = LlamaConfig(
        vocab_size=VOCABULARY[shape],
        max_position_embeddings=2 * WIDTH[shape],
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        dtype="bfloat16",
        **values,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM._from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


class Writer:
    """Writes texts of about as many tokens as asked for; always the same ones."""

    def __init__(self) -> None:
        vocabulary = load_tokenizer(TINY).get_vocab()
        self._words = sorted(word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2)
        self._random = random.Random(0)

    def length(self, width: int) -> int:
        """Tokens of a conversation: log-normal around a sixth of the longest, as lengths of conversations are."""
        return min(width, max(width // 64, int(self._random.lognormvariate(math.log(width / 6), 0.9))))

    def text(self, tokens: int) -> str:
        return " ".join(self._random.choices(self._words, k=max(1, tokens // 2)))  # a space is a token as well

    def texts(self, tokens: int, share: float) -> tuple[str, str]:
        """A question that takes its share of the tokens, and an answer."""
        return self.text(int(tokens * share)), self.text(int(tokens * (1 - share)))

    def pair(self, tokens: int) -> dict[str, Any]:
        question, chosen = self.texts(tokens, 0.5)
        return pair(question, chosen, self.text(tokens // 2))


def lines(file: Path) -> Iterator[dict[str, str]]:
    return map(json.loads, file.read_text("utf-8").splitlines())


def turns(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    answers = {"chosen": chosen, "rejected": rejected}
    said = {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}
    return {"prompt": [{"role": "user", "content": prompt}], **said}


def sft_job(folder: Path, model: Path, rows: list[Any], steps: int | None, settings: dict[str, Any]) -> TrainingJob:
    named = {"name": "benchmark", "base": "tiny", "dataset": "support"}
    config = SftConfig.model_validate(named | {"training": {"max_steps": steps} | settings})
    return job(folder, model, rows, settings["rows_at_once"], sft=config)


def dpo_job(folder: Path, model: Path, pairs: list[Any], steps: int, settings: dict[str, Any]) -> TrainingJob:
    """Exactly one pass, so that the reference is computed for no pair that is not trained on."""
    named = {"name": "benchmark", "base": "tiny", "dataset": "support_pairs"}
    config = DpoConfig.model_validate(named | {"training": {"max_steps": steps} | settings})
    repeated = [pairs[place % len(pairs)] for place in range(steps * config.training.batch_rows)]
    return job(folder, model, repeated, settings["rows_at_once"], dpo=config)


def job(
    folder: Path,
    model: Path,
    rows: list[Any],
    at_once: int,
    sft: SftConfig | None = None,
    dpo: DpoConfig | None = None,
) -> TrainingJob:
    folder.mkdir(parents=True)
    file = folder / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    return TrainingJob(folder / "job", BaseModelConfig(model=str(model)), sft, dpo, file, rows_at_once=at_once)


def in_turns(name: str, of: TrainingJob, plan: Plan, device: str) -> dict[str, list[Run]]:
    """Every side trains once a round, so that a busy machine slows them alike."""
    runs: dict[str, list[Run]] = {side: [] for side in SIDES[device]}
    for number in range(plan.rounds):
        for side in runs:
            if number and side == ONCE:
                continue
            run = one_side(side, replace(of, folder=of.folder / f"{side}{number}"))
            runs[side].append(run)
            print(f"{name} {number + 1}/{plan.rounds} {side}: {run['tokens_per_second']:.0f} tokens/s", file=sys.stderr)
    return runs


def one_side(side: str, of: TrainingJob) -> Run:
    """Train in a process of its own. Memory that runs out halves the rows at once, as the flow does."""
    command = [sys.executable, "-m", "tests.benchmarks.training_side", side, str(of.save())]
    environment = speedy() | os.environ if side == OURS else None
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        if side == OURS and "OutOfMemoryError" in done.stderr and of.rows_at_once > 1:
            return one_side(side, replace(of, rows_at_once=of.rows_at_once // 2))
        sys.exit(done.stderr[-4000:])
    run: Run = json.loads(done.stdout.splitlines()[-1])
    counted = run["steps"][WARM_UP:]
    before = run["steps"][WARM_UP - 1]
    seconds = counted[-1]["at"] - before["at"]
    seconds += run["reference_seconds"] * len(counted) / len(run["steps"])
    run["tokens_per_second"] = (counted[-1]["tokens"] - before["tokens"]) / seconds
    run["share_of_matrix_rate"] = run["tokens_per_second"] * run["operations_per_token"] / run["matrix_rate"]
    return run


def compare(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """What each side came to, and Tandem over each of the others: the ratio in each round, and the loss curves."""
    sides = {side: summary(of_side) for side, of_side in runs.items()}
    ours = runs[OURS]
    for side, theirs in runs.items():
        ratios = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(ours, theirs, strict=False)]
        apart = [abs(a["loss"] - b["loss"]) for a, b in zip(ours[0]["steps"], theirs[0]["steps"], strict=False)]
        sides[side] |= {"tandem_times": [median(ratios), min(ratios), max(ratios)], "losses_apart": max(apart)}
    return sides | {"decisions": ours[0]["decisions"]}


def summary(runs: list[Run]) -> dict[str, Any]:
    """Medians over the rounds of one side, and the loss curve's ends in the first."""
    losses = [step["loss"] for step in runs[0]["steps"]]
    medians = ("tokens_per_second", "share_of_matrix_rate", "start_seconds")
    ends = {"first_loss": losses[0], "last_loss": mean(losses[-3:]), "peak_gb": runs[0]["peak_gb"]}
    return {name: median(run[name] for run in runs) for name in medians} | ends


def whole_epoch(folder: Path, shape: str) -> dict[str, float]:
    """An epoch of Tandem, packed, over rows of about equal length."""
    count, tokens = TEN_THOUSAND[shape]
    write = Writer()
    rows = [turns(*write.texts(int(tokens * write._random.uniform(0.5, 1.5)), 0.3)) for _ in range(count)]
    settings = {"rows_at_once": 2, "batch_rows": 4, "max_length": WIDTH[shape], "learning_rate": 2e-4, "epochs": 1}
    of = sft_job(folder / "epoch", folder / "model", rows, None, settings)
    run = one_side(OURS, of)
    return {
        "rows": count,
        "tokens": run["steps"][-1]["tokens"],
        "minutes": (run["steps"][-1]["at"] - run["begin"]) / 60,
        "start_seconds": run["start_seconds"],
        "tokens_per_second": run["tokens_per_second"],
        "share_of_matrix_rate": run["share_of_matrix_rate"],
    }


def tables(result: dict[str, Any]) -> list[str]:
    rows = [
        [
            name,
            side,
            found[side]["tokens_per_second"],
            "{:.2f} ({:.2f} to {:.2f})".format(*found[side]["tandem_times"]),
            f"{found[side]['first_loss']:.3f} → {found[side]['last_loss']:.3f}",
            found[side]["losses_apart"],
            found[side]["share_of_matrix_rate"],
            found[side]["start_seconds"],
        ]
        for name, found in result["comparisons"].items()
        for side in result["runs"][name]
    ]
    columns = [
        "",
        "side",
        "tokens/s",
        "Tandem is faster (range)",
        "loss",
        "most apart",
        "of the matrix rate",
        "start, s",
    ]
    parts = [table(columns, rows)] if rows else []
    parts += [f"- {name}: {'; '.join(found['decisions'])}" for name, found in result["comparisons"].items()]
    if epoch := result.get("epoch"):
        parts.append(table(["epoch", *epoch], [["", *epoch.values()]]))
    return parts


if __name__ == "__main__":
    main()
