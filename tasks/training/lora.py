"""Adapters: a new one on a base model, or one that goes on from a parent."""

from pathlib import Path
from typing import Any

from tasks.config.training import LoraConfig
from tasks.errors import ModelError


def new_adapter(model: Any, lora: LoraConfig, seed: int) -> Any:
    """The model with a new LoRA adapter, whose first weights the seed decides.

    Raises ModelError where the model has no such modules.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model
    from transformers import set_seed

    set_seed(seed)  # before the layers are made: the Trainer would seed only after that
    targets: str | list[str] = list(lora.target_modules)
    settings = PeftLoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a fraction works as well
        lora_dropout=lora.dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
    )
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        names = sorted({name.rsplit(".", 1)[-1] for name, part in model.named_modules() if hasattr(part, "weight")})
        raise ModelError(
            f"lora.target_modules {', '.join(lora.target_modules)} cannot be adapted; the model has {', '.join(names)}"
        ) from error


def parent_adapter(model: Any, folder: Path) -> Any:
    """The model with an existing adapter, trainable again. Raises ModelError where the two do not fit."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"the adapter in {folder} does not fit the base model: {error}") from error
