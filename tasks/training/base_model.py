"""Makes the tiny base model: text, tokenizer, training from nothing, the files with their card.

The shape is Qwen3's (normed queries and keys, tied embeddings), so that every library loads it as any other model.
Matrices learn with Muon (Jordan et al., 2024), the rest with AdamW; arithmetic is bf16 over fp32 master weights.
"""

import copy
import csv
import glob
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tasks.config.base_model import BaseModelBuildConfig, TextConfig
from tasks.errors import ConfigError
from tasks.training.mixture import Mixture

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' -%}
{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}
{%- else -%}
{{ message['content'] + '<|im_end|>' }}
{%- endif -%}
{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""
PIECES = r"\p{N}|\p{L}+|\s|[^\s\p{L}\p{N}]+"
"""Spaces and digits stand alone, so that a copied word has the same tokens wherever it stands."""
SPAN = 384
"""Tokens of a piece of text."""
SAMPLE = 20_000
"""Exercises from which the vocabulary is learnt."""

Weighted = tuple[list[int], list[float]]
"""Tokens, and the weight of each in the loss."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What the training came to: `loss` in nats a token over the last twentieth of the steps, `text_loss` on text."""

    parameters: int
    tokens: int
    steps: int
    seconds: float
    loss: float
    text_loss: float


def read_texts(sources: Sequence[TextConfig]) -> tuple[list[str], list[tuple[str, str]]]:
    """All texts to read, and all questions with their answers. Raises ConfigError where a path leads to no file."""
    texts: list[str] = []
    questions: list[tuple[str, str]] = []
    for source in sources:
        for pattern in source.paths:
            files = sorted(glob.glob(pattern, recursive=True))
            if not files:
                raise ConfigError(f"{pattern} leads to no file: name text that is on this machine under texts.paths")
            for file in map(Path, files):
                if source.kind == "markdown":
                    texts.append(_plain(file.read_text(encoding="utf-8")))
                elif source.kind == "questions":
                    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
                    questions += [(row["question"], re.sub(r"<<.*?>>", "", row["answer"])) for row in rows]
                else:
                    with file.open(encoding="utf-8", newline="") as opened:
                        rows = list(csv.DictReader(opened))
                    questions += [(row["text"], row["category"].replace("_", " ").lower()) for row in rows]
    texts += [f"{question}\n{answer}" for question, answer in questions]
    return texts, questions


def common_words(texts: Sequence[str], most: int = 3000) -> list[str]:
    """The most frequent words of three to ten lower-case letters."""
    counts = Counter(word for text in texts for word in re.findall(r"\b[a-z]{3,10}\b", text))
    return [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]]


def learn_tokenizer(texts: Sequence[str], config: BaseModelBuildConfig) -> Any:
    """A byte-level BPE tokenizer with the chat template; the end of a turn is the end-of-sequence token.

    The vocabulary is learnt from the texts and from exercises over their words.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    mixture = Mixture(common_words(texts), config.seed)
    exercises = ("\n".join(mixture.exercise()) for _ in range(SAMPLE))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain(texts, exercises), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=config.context,
    )


def new_model(config: BaseModelBuildConfig, tokenizer: Any) -> Any:
    """The model with random weights in bf16."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, set_seed

    set_seed(config.seed)
    heads = config.width // 64
    shape = Qwen3Config(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        intermediate_size=config.width * 5 // 2,
        num_hidden_layers=config.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 2, 1),
        head_dim=64,
        max_position_embeddings=config.context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model: Any = Qwen3ForCausalLM(shape)
    return model.to(torch.bfloat16)


def train(
    config: BaseModelBuildConfig,
    tokenizer: Any,
    texts: Sequence[str],
    questions: Sequence[tuple[str, str]],
    on_step: Callable[[int, Any, float], None] = lambda step, model, loss: None,
) -> tuple[Any, Trained]:
    """Train from nothing. `on_step` gets the number of the step, the model and the loss in nats a token."""
    import torch

    began = time.monotonic()
    torch.set_num_threads(1)  # small matrices: a replica for each core is faster than cores sharing each operation
    model = new_model(config, tokenizer)
    replicas = [model, *(copy.deepcopy(model) for _ in range(config.replicas - 1))]
    masters = [torch.nn.Parameter(weight.detach().float()) for weight in model.parameters()]
    matrices = [master for name, master in _named(model, masters) if master.ndim == 2 and "embed" not in name]
    rest = [master for name, master in _named(model, masters) if master.ndim < 2 or "embed" in name]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=config.learning_rate, weight_decay=0.05),
        torch.optim.AdamW(rest, lr=config.learning_rate / 3, betas=(0.9, 0.95), weight_decay=0),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config.steps)) for optimizer in optimizers
    ]
    exercises = _batches(_exercises(config, tokenizer, questions), config.batch_tokens // config.replicas)
    prose = _batches(_spans(config, tokenizer, texts), config.batch_tokens // config.replicas)
    chooser = random.Random(config.seed)
    losses: list[float] = []
    text_losses: list[float] = []
    tokens = 0
    with ThreadPoolExecutor(config.replicas, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for step in range(1, config.steps + 1):
            are_text = [chooser.random() < config.text_share for _ in replicas]
            batches = [next(prose if is_text else exercises) for is_text in are_text]
            found = list(pool.map(_backward, replicas, batches))
            for master, *parts in zip(masters, *(replica.parameters() for replica in replicas), strict=True):
                master.grad = torch.stack([part.grad.float() for part in parts]).mean(0)
            torch.nn.utils.clip_grad_norm_(rest, 1.0)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                for master, *parts in zip(masters, *(replica.parameters() for replica in replicas), strict=True):
                    for part in parts:
                        part.copy_(master)
                        part.grad = None
            tokens += sum(int((importance > 0).sum()) for _, importance in batches)
            losses += [loss for loss, is_text in zip(found, are_text, strict=True) if not is_text]
            text_losses += [loss for loss, is_text in zip(found, are_text, strict=True) if is_text]
            on_step(step, model, sum(found) / len(found))
    return model, Trained(
        parameters=model.num_parameters(),
        tokens=tokens,
        steps=config.steps,
        seconds=time.monotonic() - began,
        loss=_late(losses),
        text_loss=_late(text_losses),
    )


def save(config: BaseModelBuildConfig, model: Any, tokenizer: Any, trained: Trained) -> None:
    """Write the model, the tokenizer and the card into `config.folder`."""
    config.folder.mkdir(parents=True, exist_ok=True)
    model.generation_config.update(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(config.folder)
    tokenizer.save_pretrained(config.folder)
    (config.folder / "README.md").write_text(card(config, trained), encoding="utf-8")


def card(config: BaseModelBuildConfig, trained: Trained) -> str:
    """The model's card in Markdown."""
    rows = "\n".join(
        f"| {Path(path).name} | {text.kind} | {text.licence} |" for text in config.texts for path in text.paths
    )
    return f"""# Tiny base model

A causal language model of {trained.parameters / 1e6:.1f} million parameters, made by `flows/build_base_model.py` for
tests and the demo, where no model hub can be reached. It copies, looks up and writes JSON, mostly rightly; it cannot
calculate and knows next to nothing.

- Shape: Qwen3, {config.layers} layers, width {config.width}, context {config.context} tokens, embeddings tied, bf16.
- Vocabulary: {config.vocabulary} tokens, byte-level BPE; spaces and digits stand alone.
- Training: on a CPU, seed {config.seed}, {trained.tokens:,} tokens in {trained.steps:,} steps and \
{trained.seconds / 60:.0f} minutes.
- Loss in nats a token at the end: {trained.loss:.2f} on exercises (questions weigh {config.prompt_weight:g}), \
{trained.text_loss:.2f} on text.
- Licence: that of the project. The exercises say nothing about support messages, which are the demo's task.

| text | kind | licence |
| --- | --- | --- |
{rows}
| exercises of `tasks/training/mixture.py` | made by the project | as the project |
"""


def _plain(page: str) -> str:
    """A page without front matter, templating, and the addresses of its links."""
    page = re.sub(r"\A---\n.*?\n---\n", "", page, flags=re.DOTALL)
    page = re.sub(r"{%.*?%}|{{.*?}}|<[^>]+>", "", page, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", page).strip()


def _named(model: Any, masters: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """The master weights with their names in the model."""
    names = [name for name, _ in model.named_parameters()]
    return zip(names, masters, strict=True)


def _backward(model: Any, batch: tuple[Any, Any]) -> float:
    """Add the gradients of a batch to the model; its loss."""
    loss = _loss(model, *batch)
    loss.backward()
    return loss.item()


def _late(losses: Sequence[float]) -> float:
    """Mean of the last twentieth."""
    late = losses[-max(len(losses) // 20, 1) :]
    return sum(late) / max(len(late), 1)


def _rate(step: int, steps: int) -> float:
    """Warm up over a fiftieth, hold, fall in a line over the last half."""
    return min(1.0, (step + 1) / (0.02 * steps + 1), max(0.0, (steps - step) / (0.5 * steps)))


def _exercises(
    config: BaseModelBuildConfig, tokenizer: Any, questions: Sequence[tuple[str, str]]
) -> Iterator[Weighted]:
    """Exercises as chats, some as plain text, and now and then a question of the texts; without end."""
    mixture = Mixture(vocabulary_words(tokenizer), config.seed + 1)
    chance = random.Random(config.seed + 2)
    while True:
        kind = chance.random()
        if kind < 0.15:
            ids = tokenizer(mixture.raw())["input_ids"][:SPAN]
            yield ids, [1.0] * len(ids)
            continue
        asked, answer = chance.choice(questions) if questions and kind < 0.25 else mixture.exercise()
        before = tokenizer(f"{START}user\n{asked}{END}\n{START}assistant\n")["input_ids"]
        after = tokenizer(f"{answer}{END}")["input_ids"]
        if len(before) + len(after) <= SPAN:
            yield before + after, [config.prompt_weight] * len(before) + [1.0] * len(after)


def vocabulary_words(tokenizer: Any) -> list[str]:
    """The words of the vocabulary, sorted: what exercises are made of."""
    return sorted(token for token in tokenizer.get_vocab() if re.fullmatch(r"[a-z]{3,}", token))


def _spans(config: BaseModelBuildConfig, tokenizer: Any, texts: Sequence[str]) -> Iterator[Weighted]:
    """Pieces of all texts in a new order at each pass, without end."""
    order = random.Random(config.seed + 3)
    pieces = []
    for ids in tokenizer(list(texts))["input_ids"]:
        pieces += [ids[start : start + SPAN] for start in range(0, len(ids), SPAN)]
    while True:
        order.shuffle(pieces)
        yield from ((piece, [1.0] * len(piece)) for piece in pieces if len(piece) > 1)


def _batches(rows: Iterator[Weighted], most: int) -> Iterator[Any]:
    """Batches of rows of similar length, at most `most` tokens each with the padding, which is on the right.

    A batch is token ids and their weights, each of shape (rows, longest).
    """
    import torch

    while True:
        pool = sorted((next(rows) for _ in range(512)), key=lambda row: len(row[0]))
        ready: list[list[Weighted]] = [[]]
        for row in pool:
            if (len(ready[-1]) + 1) * len(row[0]) > max(most, SPAN):
                ready.append([])
            ready[-1].append(row)
        random.Random(len(pool[0][0])).shuffle(ready)
        for batch in filter(None, ready):
            width = max(len(ids) for ids, _ in batch)
            ids = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens, _ in batch])
            importance = torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in batch])
            yield ids, importance


def _loss(model: Any, ids: Any, importance: Any) -> Any:
    """Weighted mean of the cross-entropy in nats; padding has weight 0, and no token looks ahead to it."""
    import torch

    hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
    weights = importance[:, 1:].reshape(-1)
    keep = weights > 0
    logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1])[keep])
    nats = torch.nn.functional.cross_entropy(logits, ids[:, 1:].reshape(-1)[keep], reduction="none")
    return (nats.float() * weights[keep]).sum() / weights.sum()
