"""Trained adapters: which weights they are, whether they fit a base model, and how they are loaded onto it."""

from pathlib import Path

from tasks.config.training import BaseModelConfig
from tasks.errors import ModelError
from tasks.records import AdapterManifest
from tasks.training.base import fetch_base, hash_base, load_base, load_tokenizer

Turn = dict[str, str]


class Adapted:
    """A base model with one adapter, ready to answer."""

    def __init__(self, manifest: AdapterManifest, folder: Path) -> None:
        """Raises ModelError where base model or adapter are not the ones the manifest names."""
        import torch
        from peft import PeftModel

        base = check_weights(manifest, folder)
        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        self.tokenizer = load_tokenizer(folder)
        self.model = PeftModel.from_pretrained(load_base(base, dtype), folder).eval()

    def answer(self, conversations: list[list[Turn]], max_new_tokens: int) -> list[str]:
        """The likeliest answer to each conversation."""
        from tasks.training.likelihood import answers

        return answers(self.model, self.tokenizer, conversations, max_new_tokens)


def check_weights(manifest: AdapterManifest, folder: Path) -> Path:
    """The base model's folder, once base and adapter are shown to be the ones that the manifest names.

    Raises ModelError with both hashes where they are not.
    """
    config = BaseModelConfig.model_validate(manifest.base)
    base = fetch_base(config)
    for what, where, expected, found in (
        (f"the base model {config.model}", base, manifest.base_hash, hash_base(base)),
        ("the adapter", folder, manifest.adapter_hash, hash_base(folder)),
    ):
        if found != expected:
            raise ModelError(
                f"{manifest.adapter} {manifest.tag} does not fit: {what} in {where} has the hash {found}, and it was "
                f"registered with {expected}; bring back those weights, or train again"
            )
    return base


def prove_shapes(base: Path, folder: Path) -> None:
    """Show, without loading the base model's weights, that an adapter's matrices fit its layers.

    Raises ModelError if they do not.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
            PeftModel.from_pretrained(model, folder, torch_device="cpu", low_cpu_mem_usage=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"the adapter in {folder} cannot be loaded onto {base}: {error}") from error
