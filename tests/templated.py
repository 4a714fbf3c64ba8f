"""The tiny base model under the chat template of a known family, with that family's special tokens.

The templates are read from TRL, which ships copies of them. A base model of a family has been trained with its
template: here the tiny model's own special tokens get the family's names, and tokens that it lacks are added untrained.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TINY = Path(__file__).resolve().parents[1] / "data" / "models" / "tiny"
OWN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Special tokens of the tiny model: padding, the start of a turn, its end."""


@dataclass(frozen=True, slots=True)
class Family:
    """What a family's tokenizer has beside its template."""

    template: str
    """Its file in TRL."""
    eos: str
    turn_end: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Own special tokens by the family's names."""
    added: tuple[str, ...] = ()
    """Special tokens that the tiny model lacks."""
    plain: tuple[str, ...] = ()
    """Added tokens that are not special, so that they stand in decoded text."""
    bos: str | None = None


FAMILIES = {
    "qwen3": Family("qwen3", "<|im_end|>", "<|im_end|>", plain=("<think>", "</think>")),
    "gemma": Family(
        "gemma",
        "<eos>",
        "<end_of_turn>",
        renamed=dict(zip(OWN, ("<pad>", "<start_of_turn>", "<end_of_turn>"), strict=True)),
        added=("<eos>", "<bos>"),
        bos="<bos>",
    ),
    "phi": Family(
        "phi3",
        "<|endoftext|>",
        "<|end|>",
        renamed={"<|im_start|>": "<|assistant|>", "<|im_end|>": "<|end|>"},
        added=("<|user|>", "<|system|>"),
    ),
    "llama3": Family(
        "llama3",
        "<|end_of_text|>",
        "<|eot_id|>",
        renamed={"<|im_start|>": "<|start_header_id|>", "<|im_end|>": "<|eot_id|>"},
        added=("<|end_of_text|>", "<|begin_of_text|>", "<|end_header_id|>"),
        bos="<|begin_of_text|>",
    ),
}


def template_of(name: str) -> str:
    """A chat template that TRL ships."""
    spec = find_spec("trl")
    assert spec
    assert spec.origin
    return (Path(spec.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def under_template(family: Family, folder: Path) -> Path:
    """A copy of the tiny base model as one of the family; returns its folder."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(TINY, folder)
    _rename(folder / "tokenizer.json", family.renamed)
    tokenizer = _tokenizer(family, folder)
    tokenizer.save_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.save_pretrained(folder)
    return folder


def _rename(file: Path, names: Mapping[str, str]) -> None:
    saved = json.loads(file.read_text(encoding="utf-8"))
    for token in saved["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    saved["model"]["vocab"] = {names.get(text, text): number for text, number in saved["model"]["vocab"].items()}
    file.write_text(json.dumps(saved, ensure_ascii=False), encoding="utf-8")


def _tokenizer(family: Family, folder: Path) -> Any:
    from transformers import AddedToken, PreTrainedTokenizerFast

    named = {"bos_token": family.bos} if family.bos else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        eos_token=family.eos,
        pad_token=family.renamed.get(OWN[0], OWN[0]),
        chat_template=template_of(family.template),
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        **named,
    )
    tokenizer.add_tokens([AddedToken(text, special=True) for text in family.added], special_tokens=True)
    tokenizer.add_tokens([AddedToken(text, special=False) for text in family.plain])
    return tokenizer
