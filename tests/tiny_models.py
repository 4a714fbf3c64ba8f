"""A causal language model of a few hundred thousand random weights, made in a second, for tests of training."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tasks.config.training import BaseModelConfig, DpoConfig, SftConfig
from tasks.training.job import TrainingJob

if TYPE_CHECKING:
    from tasks.training.likelihood import Said

WORDS = (
    "please",
    "cancel",
    "refund",
    "order",
    "box",
    "red",
    "blue",
    "late",
    "broken",
    "where",
    "is",
    "my",
    "the",
    "it",
)
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def make_model(folder: Path, template: str = TEMPLATE, seed: int = 0) -> Path:
    """A Llama with a byte-level tokenizer; returns its folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bytes_ = Tokenizer(models.BPE())
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|start|>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bytes_.train_from_iterator(
        [" ".join(WORDS)], trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_, pad_token="<|pad|>", eos_token="<|end|>")
    tokenizer.chat_template = template
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Base:
    """The model without an adapter, which answers as one with an adapter does."""

    def __init__(self, folder: Path) -> None:
        import torch

        from tasks.training.base import load_base, load_tokenizer

        self.tokenizer = load_tokenizer(folder)
        self.model = load_base(folder, torch.float32).eval()

    def say(self, conversations: list[list[dict[str, str]]], max_new_tokens: int, grammar: str = "") -> "list[Said]":
        from tasks.training.likelihood import say

        return say(self.model, self.tokenizer, conversations, max_new_tokens, grammar)


def make_adapter(model: Path, folder: Path, seed: int = 0) -> Path:
    """An adapter of random weights, which no training made; returns its folder."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tasks.training.base import load_base, load_tokenizer

    torch.manual_seed(seed)
    config = LoraConfig(target_modules="all-linear", r=8, lora_alpha=64, init_lora_weights=False)
    get_peft_model(load_base(model, torch.float32), config).save_pretrained(folder)
    load_tokenizer(model).save_pretrained(folder)
    return folder


def write_conf(folder: Path, model: Path) -> Path:
    """A folder of configurations whose one base model is `model`."""
    for kind, text in {"models/tiny.yaml": f"model: {model}\n", "datasets/rows.yaml": DATASET}.items():
        (folder / kind).parent.mkdir(parents=True, exist_ok=True)
        (folder / kind).write_text(text)
    return folder


DATASET = "format: messages\nsources: [rows.jsonl]\n"


def write_lines(file: Path, items: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(item) + "\n" for item in items))


def write_yaml(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(values))


def write_data(folder: Path) -> Path:
    """64 conversations, and a little text and questions about nothing; returns the conversations' file."""
    write_lines(folder / "rows.jsonl", [{"messages": conversation(number)} for number in range(64)])
    write_lines(folder / "text.jsonl", [{"text": f"some other text number {number}"} for number in range(8)])
    write_lines(folder / "choices.jsonl", [{"question": "a a a a", "choices": [" a", " box"], "answer": " a"}] * 8)
    return folder / "rows.jsonl"


def conversation(number: int) -> list[dict[str, str]]:
    """A question and an answer that depend on the number."""
    question = " ".join(WORDS[(number * 7 + place * place) % len(WORDS)] for place in range(5 + number % 7))
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": f"{number % 10} {WORDS[number % 5]}"},
    ]


def write_rows(file: Path, count: int) -> Path:
    pq.write_table(pa.Table.from_pylist([{"messages": conversation(number)} for number in range(count)]), file)
    return file


def write_pairs(file: Path, count: int) -> Path:
    rows = []
    for number in range(count):
        question, answer = conversation(number)
        other = {"role": "assistant", "content": "no"}
        rows.append({"prompt": [question], "chosen": [answer], "rejected": [other]})
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def sft_job(
    folder: Path, model: Path, rows: Path, machine: dict | None = None, lora: dict | None = None, **training: object
) -> TrainingJob:
    settings = {
        "max_length": 64,
        "batch_rows": 8,
        "rows_at_once": 4,
        "learning_rate": 0.01,
        "packing": False,
    } | training
    config = SftConfig(
        name="tiny",
        base="tiny",
        dataset="rows",
        machine={"precision": "fp32"} | (machine or {}),
        lora=lora or {},
        training=settings,
    )
    return TrainingJob(folder, BaseModelConfig(model=str(model)), config, None, rows, rows_at_once=4)


def dpo_job(
    folder: Path,
    model: Path,
    pairs: Path,
    parent: Path | None = None,
    machine: dict | None = None,
    **training: object,
) -> TrainingJob:
    settings = {"max_length": 64, "batch_rows": 8, "rows_at_once": 4, "learning_rate": 0.01} | training
    machine = {"precision": "fp32"} | (machine or {})
    config = DpoConfig(name="tiny", base="tiny", dataset="rows", machine=machine, training=settings)
    return TrainingJob(folder, BaseModelConfig(model=str(model)), None, config, pairs, parent=parent, rows_at_once=4)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def tiny_conf(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory):
    """conf/ with the tiny model, for the test's process and for those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TANDEM_CONF", str(write_conf(tmp_path_factory.mktemp("conf"), tiny_model)))
        yield
