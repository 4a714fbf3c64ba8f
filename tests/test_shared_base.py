"""Several adapters on one base model, each answering as if it were alone."""

import gc
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tasks.errors import ModelError
from tasks.records import AdapterManifest
from tasks.training import adapter as opening
from tasks.training.adapter import Adapted, SharedBase
from tasks.training.base import hash_around, hash_base, hash_settings, load_base, load_tokenizer
from tasks.training.likelihood import answers
from tests.tiny_models import make_adapter, make_model

ASKED = [[{"role": "user", "content": text}] for text in ("how hot is tea", "where is the harbour")]


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, list[str]]:
    """Three adapters with weights of their own, and what each answers on a base model that no other uses."""
    from peft import PeftModel

    made = {}
    for seed in range(3):
        folder = make_adapter(tiny_model, tmp_path_factory.mktemp("adapter"), seed)
        alone = PeftModel.from_pretrained(load_base(tiny_model, torch.float32), folder).eval()
        made[folder] = answers(alone, load_tokenizer(tiny_model), ASKED, 12)
    assert len({tuple(said) for said in made.values()}) == 3
    return made


def manifest(tiny_model: Path, folder: Path) -> AdapterManifest:
    weights = hash_base(tiny_model), hash_base(folder)
    return AdapterManifest("helper", "v1", "sft", {"model": str(tiny_model)}, *weights, "support", "d", "", 1, {})


def test_adapters_share_one_base_and_each_answers_as_if_it_were_alone(
    tiny_model: Path, adapters: dict[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []

    def load(folder: Path, dtype: torch.dtype) -> object:
        loaded.append(folder)
        return load_base(folder, dtype)

    monkeypatch.setattr(opening, "load_base", load)
    opened = {folder: Adapted(manifest(tiny_model, folder), folder) for folder in adapters}
    assert loaded == [tiny_model]
    with ThreadPoolExecutor(4) as pool:
        turns = [(folder, pool.submit(opened[folder].answer, ASKED, 12)) for folder in [*adapters] * 4]
    for folder, said in turns:
        assert said.result() == adapters[folder]


def test_an_adapter_that_nobody_holds_leaves_the_base_and_the_others_stay(
    tiny_model: Path, adapters: dict[Path, list[str]]
) -> None:
    first, second, third = adapters
    kept, left = (Adapted(manifest(tiny_model, folder), folder) for folder in (first, second))
    assert left.answer(ASKED, 12) == adapters[second]
    del left
    gc.collect()
    assert kept.answer(ASKED, 12) == adapters[first]
    assert Adapted(manifest(tiny_model, third), third).answer(ASKED, 12) == adapters[third]


def test_an_adapter_is_refused_on_other_weights_than_it_was_registered_with(
    tiny_model: Path, adapters: dict[Path, list[str]], tmp_path: Path
) -> None:
    first, second, _ = adapters
    registered, other = manifest(tiny_model, first), make_model(tmp_path / "model", seed=1)
    for changed, folder, expected, found in (
        (replace(registered, base={"model": str(other)}), first, registered.base_hash, hash_base(other)),
        (registered, second, registered.adapter_hash, hash_base(second)),
    ):
        with pytest.raises(ModelError, match=f"hash {found}, and it was registered with {expected}"):
            Adapted(changed, folder)


def test_an_adapter_is_refused_on_a_base_that_computes_otherwise(
    tiny_model: Path, adapters: dict[Path, list[str]], tmp_path: Path
) -> None:
    base, folder = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(tiny_model, base)
    shutil.copytree(next(iter(adapters)), folder)
    hashes = {"base_settings_hash": hash_settings(base), "adapter_settings_hash": hash_around(folder)}
    registered = replace(manifest(base, folder), **hashes)
    said = Adapted(registered, folder).answer(ASKED, 12)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"transformers_version": "5.99"}))
    assert Adapted(registered, folder).answer(ASKED, 12) == said
    (base / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    with pytest.raises(ModelError, match=r"configuration of the base model .* has the hash"):
        Adapted(registered, folder)
    before = manifest(base, folder)  # made before the settings were kept
    assert Adapted(before, folder).answer(ASKED, 12) != said
    (base / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"padding_side": "right"}))
    with pytest.raises(ModelError, match=r"configuration or tokenizer of the adapter .* has the hash"):
        Adapted(registered, folder)


def test_the_weights_of_a_dropped_adapter_are_freed(tiny_model: Path, adapters: dict[Path, list[str]]) -> None:
    base = SharedBase(tiny_model)
    one, two = (base.add(folder) for folder in list(adapters)[:2])
    with base.using(one) as model:
        both = sum(parameter.numel() for parameter in model.parameters())
    base.drop(one)
    with base.using(two) as model:
        assert list(model.peft_config) == [two]
        assert sum(parameter.numel() for parameter in model.parameters()) < both


def test_what_all_conversations_begin_with_is_read_once_and_each_is_answered_as_if_alone(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = [{"role": "user", "content": "how hot is soup " * 12}, {"role": "assistant", "content": "80 degrees"}]
    asked = [[*example, *turns] for turns in [*ASKED, [{"role": "user", "content": "and when does the ferry leave"}]]]
    model, tokenizer = load_base(tiny_model, torch.float32).eval(), load_tokenizer(tiny_model)
    alone = [answers(model, tokenizer, [turns], 12)[0] for turns in asked]
    read: list[int] = []
    forward = model.model.forward

    def counted(input_ids: torch.Tensor, **kwargs: object) -> object:
        read.append(input_ids.numel())
        return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model.model, "forward", counted)
    assert answers(model, tokenizer, asked, 12) == alone
    monkeypatch.setattr("tasks.training.likelihood.WORTH_KEEPING", 10_000)
    once, read[:] = sum(read), []
    assert answers(model, tokenizer, asked, 12) == alone
    assert once < 0.6 * sum(read)
