"""Tasks of lm-evaluation-harness on a tiny model, from files on this machine."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.errors import ConfigError
from tasks.training.suites import run_suites

LIKELIER = [1.0, 0.0, 1.0]
"""Whether the answer is the choice that the model finds likelier, by question."""


@pytest.fixture
def model(tiny_model: Path) -> tuple[Any, Any]:
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = get_peft_model(plain, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    return adapted.eval(), AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def folder(model: tuple[Any, Any], tmp_path: Path) -> Path:
    """A task of three questions, each with the choice as answer that `LIKELIER` says."""
    items = []
    for number, likelier in enumerate(LIKELIER):
        question, choices = f"where is box {number}", ["red", "please refund the order"]
        best = max(choices, key=lambda choice: _likelihood(*model, question, f" {choice}"))
        answer = choices.index(best) if likelier else 1 - choices.index(best)
        items.append({"question": question, "choices": choices, "answer": answer})
    (tmp_path / "boxes.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    task = {
        "task": "boxes",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "boxes.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "boxes.yaml").write_text(yaml.safe_dump(task))
    return tmp_path


def _likelihood(model: Any, tokenizer: Any, question: str, choice: str) -> float:
    import torch

    start, ids = len(tokenizer(question)["input_ids"]), tokenizer(question + choice, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(ids).logits[0].log_softmax(-1)
    return float(sum(logits[place - 1, ids[0, place]] for place in range(start, ids.shape[1])))


def test_every_question_has_its_value_and_only_as_many_are_asked_as_wanted(
    model: tuple[Any, Any], folder: Path
) -> None:
    assert run_suites(*model, ["boxes"], str(folder), rows=10) == {"boxes": LIKELIER}
    assert run_suites(*model, ["boxes"], str(folder), rows=2) == {"boxes": LIKELIER[:2]}


def test_a_task_that_nobody_knows_is_named(model: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigError, match="knows no task boxez"):
        run_suites(*model, ["boxez"], "", rows=1)
