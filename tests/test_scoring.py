"""Scoring processes: what a contender did before is not asked of it again, and what is asked otherwise is."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tasks.config.training import BaseModelConfig, LoraConfig, MachineConfig, ScoringConfig
from tasks.training import kept, scorer
from tasks.training.base import load_base, load_tokenizer
from tasks.training.job import EventWriter
from tasks.training.likelihood import continuation, likelihoods
from tasks.training.lora import new_adapter
from tasks.training.scoring_job import ScoredAll, ScoringJob
from tests.tiny_models import conversation, write_data, write_lines, write_rows

Asked = list[str]


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path) -> ScoringJob:
    """The base and one adapter on six rows."""
    write_data(tmp_path)
    scoring = ScoringConfig(
        scores=("exact_match",),
        max_rows=3,
        max_new_tokens=4,
        examples=1,
        general_text=str(tmp_path / "text.jsonl"),
        general_choices=str(tmp_path / "choices.jsonl"),
    )
    return ScoringJob(
        folder=tmp_path,
        base=BaseModelConfig(model=str(tiny_model)),
        adapters={"candidate": adapter(tiny_model, tmp_path / "one", 1)},
        held_out=held_out(tmp_path / "held_out.parquet", range(6)),
        train=write_rows(tmp_path / "train.parquet", 8),
        scoring=scoring,
        max_length=64,
        seed=0,
        machine=MachineConfig(precision="fp32"),
        kept=tmp_path / "kept",
    )


def adapter(model: Path, folder: Path, seed: int) -> Path:
    """One whose weights are all random, so that it answers otherwise than its base."""
    adapted = new_adapter(load_base(model, torch.float32), LoraConfig(), seed)
    torch.manual_seed(seed)
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights)
    adapted.save_pretrained(folder)
    return folder


def held_out(file: Path, numbers: range) -> Path:
    rows = [{"id": f"row {n}", "label": None, "messages": conversation(n)} for n in numbers]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Which contenders had to do something, as it goes on; the names of the adapters, or `base`."""
    names: Asked = []
    once = scorer._once

    def watched(job: ScoringJob, name: str, speed: Any, try_one: Callable[[str], Any]) -> Any:
        def noted(name: str) -> Any:
            names.append(name)
            return try_one(name)

        return once(job, name, speed, noted)

    monkeypatch.setattr(scorer, "_once", watched)
    return names


def score(job: ScoringJob) -> ScoredAll:
    return scorer.score(job, EventWriter(job.folder))


def test_what_a_contender_did_before_is_not_asked_of_it_again(job: ScoringJob, asked: Asked, tmp_path: Path) -> None:
    first = score(job)
    assert asked == ["base", "candidate", "base with examples"]
    assert first.contenders["candidate"].nats != first.contenders["base"].nats
    asked.clear()
    another = adapter(Path(job.base.model), tmp_path / "another", 2)
    second = score(replace(job, adapters={"candidate": another, "champion": job.adapters["candidate"]}))
    assert asked == ["candidate"]
    assert second.contenders["champion"] == first.contenders["candidate"]
    assert second.contenders["base"] == first.contenders["base"]
    assert second.contenders["candidate"].nats != first.contenders["candidate"].nats
    anew = score(replace(job, kept=None))
    assert asked == ["candidate", "base", "candidate", "base with examples"]
    assert anew == first


def test_the_base_with_examples_has_likelihoods_as_the_others_and_they_are_those_behind_the_examples(
    job: ScoringJob, tmp_path: Path
) -> None:
    pairs = [{"prompt": conversation(n)[:1], "chosen": says("yes"), "rejected": says("no")} for n in range(4)]
    rows = [{"id": f"row {n}", "label": None, **pair} for n, pair in enumerate(pairs)]
    for file, some in ((job.held_out, rows), (job.train, pairs)):
        pq.write_table(pa.Table.from_pylist(some), file)
    shown = job.scoring.model_copy(update={"scores": (), "examples": 2})
    found = score(replace(job, scoring=shown)).contenders["base with examples"]
    model, tokenizer = load_base(Path(job.base.model), torch.float32).eval(), load_tokenizer(Path(job.base.model))
    examples = [turn for example in scorer._examples(replace(job, scoring=shown)) for turn in example]
    for n, pair in enumerate(pairs):
        yes, no = (
            likelihoods(model, [continuation(tokenizer, [*examples, *pair["prompt"], *pair[answer]], 1000)])[0]
            for answer in ("chosen", "rejected")
        )
        assert found.nats[n] == pytest.approx(-yes[0] / yes[1], rel=1e-4)
        assert found.margins[n] == pytest.approx(yes[0] - no[0], rel=1e-3, abs=1e-3)
    assert len(examples) == 4
    assert found.answers == found.general_nats == []


def test_of_an_answer_that_is_too_long_the_same_tokens_count_with_examples(job: ScoringJob) -> None:
    long = {"prompt": conversation(1)[:1], "chosen": says("yes " * 2 * job.max_length), "rejected": says("no")}
    for file, row in ((job.held_out, {"id": "row 1", "label": None, **long}), (job.train, long)):
        pq.write_table(pa.Table.from_pylist([row]), file)
    shown = job.scoring.model_copy(update={"scores": (), "examples": 1})
    found = score(replace(job, scoring=shown)).contenders
    assert found["base with examples"].tokens == found["base"].tokens == [job.max_length - 1]


def says(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


CHANGES: dict[str, Callable[[ScoringJob], ScoringJob]] = {
    "another row": lambda job: replace(job, held_out=held_out(job.folder / "other.parquet", range(1, 7))),
    "longer answers": lambda job: replace(job, scoring=job.scoring.model_copy(update={"max_new_tokens": 5})),
    "shorter rows": lambda job: replace(job, max_length=32),
    "another precision": lambda job: replace(job, machine=MachineConfig(precision="bf16")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_is_asked_otherwise_is_asked_again(
    job: ScoringJob, asked: Asked, change: Callable[[ScoringJob], ScoringJob]
) -> None:
    score(job)
    asked.clear()
    score(change(job))
    assert asked == ["base", "candidate", "base with examples"]


def test_other_texts_are_scored_again_and_other_examples_are_shown_again(job: ScoringJob, asked: Asked) -> None:
    score(job)
    asked.clear()
    write_rows(job.train, 9)
    score(job)
    assert asked == ["base with examples"]
    asked.clear()
    write_lines(Path(job.scoring.general_text), [{"text": "another text"}])
    score(job)
    assert asked == ["base", "candidate", "base with examples"]


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer.json", "generation_config.json"])
def test_what_lies_around_the_same_weights_decides_too(job: ScoringJob, tmp_path: Path, file: str) -> None:
    base = shutil.copytree(job.base.model, tmp_path / "base")
    copied = replace(job, base=BaseModelConfig(model=str(base)))
    before = kept.key_of(copied, None, False, "cpu", "fp32")
    assert before == kept.key_of(job, None, False, "cpu", "fp32")
    with (base / file).open("a") as text:
        text.write("\n")
    assert kept.key_of(copied, None, False, "cpu", "fp32") != before


def test_an_adapter_of_another_scale_is_asked_again(job: ScoringJob, asked: Asked) -> None:
    score(job)
    asked.clear()
    file = job.adapters["candidate"] / "adapter_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"lora_alpha": settings["lora_alpha"] * 2}))
    score(job)
    assert asked == ["candidate"]


def test_only_the_newest_are_kept(job: ScoringJob, monkeypatch: pytest.MonkeyPatch) -> None:
    assert job.kept
    monkeypatch.setattr(kept, "MOST", 2)
    score(job)
    assert len(list(job.kept.iterdir())) == 2
