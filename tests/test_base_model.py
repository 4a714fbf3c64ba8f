"""The tiny base model: how it is made, and what the one that is shipped can do."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.config.base_model import BaseModelBuildConfig, TextConfig
from tasks.config.loading import load_config
from tasks.errors import ConfigError
from tasks.training.base_model import (
    END,
    learn_tokenizer,
    read_texts,
    save,
    train,
)
from tasks.training.mixture import Mixture
from tests.realdata import needs_real_data

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "data" / "models" / "tiny"
WORDS = ["lamp", "river", "seven", "green", "table", "copper", "window", "morning", "paper", "garden"]


@pytest.fixture(scope="module")
def shipped() -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return (
        AutoModelForCausalLM.from_pretrained(SHIPPED, local_files_only=True).eval(),
        AutoTokenizer.from_pretrained(SHIPPED, local_files_only=True),
    )


def small(folder: Path, **changes: Any) -> BaseModelBuildConfig:
    """A configuration whose model is made in seconds, from one page and two questions under `folder`."""
    (folder / "page.md").write_text("---\ntitle: T\n---\nThe [lamp](http://x) is green.\n")
    (folder / "sums.jsonl").write_text('{"question": "1 + 1?", "answer": "<<1+1=2>>2"}\n')
    (folder / "labels.csv").write_text("text,category\nwhere is it,lost_thing\n")
    return BaseModelBuildConfig(
        folder=folder / "model",
        texts=(
            TextConfig(paths=(f"{folder}/*.md",), kind="markdown", licence="CC0"),
            TextConfig(paths=(f"{folder}/sums.jsonl",), kind="questions", licence="MIT"),
            TextConfig(paths=(f"{folder}/labels.csv",), kind="labels", licence="MIT"),
        ),
        **{"vocabulary": 600, "width": 64, "layers": 1, "steps": 3, "batch_tokens": 512, **changes},
    )


def test_text_is_read_without_front_matter_links_and_marks(tmp_path: Path) -> None:
    texts, questions = read_texts(small(tmp_path).texts)
    assert questions == [("1 + 1?", "2"), ("where is it", "lost thing")]
    assert texts == ["The [lamp] is green.", "1 + 1?\n2", "where is it\nlost thing"]


def test_a_path_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.md leads to no file"):
        read_texts([TextConfig(paths=("nowhere.md",), kind="markdown", licence="CC0")])


def test_one_seed_makes_one_model_and_another_seed_another(tmp_path: Path) -> None:
    def weights(seed: int) -> Any:
        config = small(tmp_path, seed=seed)
        texts, questions = read_texts(config.texts)
        model, _ = train(config, learn_tokenizer(texts, config), texts, questions)
        return model.lm_head.weight.float()

    first = weights(1)
    assert (first - weights(1)).abs().mean() < 1e-3  # two threads may round a sum in another order
    assert (first - weights(2)).abs().mean() > 1e-2


def test_training_lowers_the_loss_and_the_card_says_what_was_read(tmp_path: Path) -> None:
    config = small(tmp_path, steps=30)
    texts, questions = read_texts(config.texts)
    tokenizer = learn_tokenizer(texts, config)
    losses: list[float] = []
    model, trained = train(config, tokenizer, texts, questions, lambda step, model, loss: losses.append(loss))
    assert len(losses) == trained.steps == 30
    assert sum(losses[-5:]) < sum(losses[:5]) - 5
    save(config, model, tokenizer, trained)
    card = (config.folder / "README.md").read_text()
    assert f"{trained.tokens:,} tokens in 30 steps" in card
    assert "| sums.jsonl | questions | MIT |" in card


@pytest.mark.parametrize("seed", range(20))
def test_what_an_extraction_asks_for_stands_in_the_text_or_is_null(seed: int) -> None:
    question, answer = Mixture(WORDS, seed).extract()
    for value in json.loads(answer).values():
        assert value is None or str(value) in question


def test_a_copy_is_the_text_it_was_asked_to_copy() -> None:
    mixture = Mixture(WORDS, 0)
    assert all(answer in question for question, answer in (mixture.repeat() for _ in range(50)))


def test_exercises_of_one_seed_are_the_same() -> None:
    first, again, other = (Mixture(WORDS, seed) for seed in (3, 3, 4))
    drawn = [first.exercise() for _ in range(20)]
    assert drawn == [again.exercise() for _ in range(20)]
    assert drawn != [other.exercise() for _ in range(20)]


@pytest.mark.realdata
@needs_real_data
def test_the_recipe_of_today_still_makes_the_shipped_vocabulary(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(ROOT / "conf" / "base_model" / "tiny.yaml", BaseModelBuildConfig)
    texts, _ = read_texts(config.texts)
    learn_tokenizer(texts, config).save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (SHIPPED / "tokenizer.json").read_bytes()


def test_the_shipped_model_is_small_and_its_end_of_turn_is_trained(shipped: tuple[Any, Any]) -> None:
    from trl.chat_template_utils import is_chat_template_stop_token_trained

    model, tokenizer = shipped
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 12_000_000
    assert model.num_parameters() <= 6_000_000
    assert model.config.max_position_embeddings >= 512
    assert tokenizer.eos_token == END
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert is_chat_template_stop_token_trained(tokenizer)


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_any_text_survives_the_shipped_tokenizer(text: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHIPPED, local_files_only=True)
    for special in tokenizer.all_special_tokens:
        text = text.replace(special, "")
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_copied_word_has_the_same_tokens_wherever_it_stands(shipped: tuple[Any, Any]) -> None:
    _, tokenizer = shipped
    alone = tokenizer("copper")["input_ids"]
    for text in ("the copper", '"copper"', "copper,"):
        found = tokenizer(text)["input_ids"]
        assert any(found[place : place + len(alone)] == alone for place in range(len(found)))
    assert len(tokenizer("20931")["input_ids"]) == 5


def test_the_shipped_model_copies_and_stops(shipped: tuple[Any, Any]) -> None:
    model, tokenizer = shipped
    asked = [f"Repeat: {WORDS[n]} {WORDS[n + 3]} {WORDS[n + 1]}" for n in range(6)]
    right = 0
    for question in asked:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = model.generate(**ids, max_new_tokens=20, do_sample=False)[0, ids["input_ids"].shape[1] :]
        right += tokenizer.decode(made) == question.removeprefix("Repeat: ") + END
    assert right >= 5
