"""How a model is trained fast on this machine: precision, attention, kernels; each with its reason."""

import os
import re
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.config.training import LoraConfig, MachineConfig

if TYPE_CHECKING:
    import torch

Precision = Literal["bf16", "fp32"]
VARLEN = "varlen"
"""The name under which transformers knows `tasks.training.varlen.attend`."""
PEAK_TFLOPS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H200": 989,
    "H100": 989,
    "H20": 148,
    "B200": 2250,
    "A100": 312,
    "L40S": 362,
    "A10G": 70,
    "L4": 121,
    "RTX 4090": 165,
}
"""Dense bf16 matrix rate by words of a GPU's name, in 10¹² operations a second, as in NVIDIA's data sheets; the first
that fits counts."""
SAMPLE = (8, 128)
"""Rows and tokens of the step by which precisions are compared on a CPU; …"""
SAMPLE_STEPS = 5
"""… and how often each takes it."""
CLEARLY = 1.25
"""How many times as fast bf16 must be, so that chance does not decide otherwise when a training goes on."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What was decided, and why, in sentences that are logged once."""

    precision: Precision
    attention: str
    """As transformers names it."""
    liger: bool
    """Fused kernels by Liger, …"""
    compiled: bool
    """… or layers compiled by torch."""
    on_gpu: bool
    reasons: dict[str, str]
    """By what was decided: precision, attention, kernels."""


def choose_speed(machine: MachineConfig, model_folder: Path, before: Precision | None = None) -> Speed:
    """Decide for the device that this process sees; `before` is the precision of the training that goes on."""
    import torch

    attention, why_attention = _attention(machine, model_folder)
    if not torch.cuda.is_available():
        on_cpu, why = _as_before(before) if before else _precision_on_cpu(machine, model_folder)
        return Speed(on_cpu, attention, False, False, False, {"precision": why, "attention": why_attention})
    precision: Precision = before or ("fp32" if machine.precision == "fp32" else "bf16")
    liger = machine.fused and find_spec("liger_kernel") is not None
    compiled = machine.fused and not liger and find_spec("triton") is not None
    kernels = "Liger" if liger else "torch.compile, layer by layer" if compiled else "none, as `fused` is off"
    return Speed(
        precision,
        attention,
        liger,
        compiled,
        True,
        {
            "precision": f"{precision} weights on {torch.cuda.get_device_name()}",
            "attention": why_attention,
            "kernels": f"fused kernels by {kernels}",
        },
    )


def peak_flops(processes: int) -> float | None:
    """Matrix operations a second that the GPUs of all processes can do in bf16; None where it is not known."""
    import torch

    if not torch.cuda.is_available():
        return None
    peak = peak_of(torch.cuda.get_device_name())
    return peak and peak * processes


def peak_of(gpu: str) -> float | None:
    """Of one GPU, by the name that its driver gives it."""
    rates = (rate * 1e12 for words, rate in PEAK_TFLOPS.items() if re.search(rf"\b{words}\b", gpu))
    return next(rates, None)


def flops_per_token(model: Any) -> float:
    """Matrix operations of training for one token, attention aside.

    Two for each weight forward and two backward for the gradient of the activations; only trained weights take two
    more for their own gradient (Kaplan et al., "Scaling Laws for Neural Language Models", 2020, section 2.1).
    """
    embedding = model.get_input_embeddings().weight
    counts = [(_weights_in(p), p.requires_grad) for p in model.parameters() if p is not embedding]
    tied = model.get_output_embeddings() is not None and model.get_output_embeddings().weight is embedding
    head = embedding.numel() if tied else 0
    return sum(count * (6 if trained else 4) for count, trained in counts) + 4 * head


def _weights_in(parameter: Any) -> int:
    """How many; bitsandbytes packs those of four bits into fewer numbers, and keeps the shape that they had."""
    unpacked = getattr(parameter, "quant_state", None)
    return unpacked.shape.numel() if unpacked else parameter.numel()


def _attention(machine: MachineConfig, model_folder: Path) -> tuple[str, str]:
    """The attention and the reason for it."""
    if not machine.fused:
        return "sdpa", "attention by SDPA: `fused` is off"
    if not _is_plain(model_folder):
        return "sdpa", "attention by SDPA: the model's own is none of causal rows alone"
    if problem := _kernel_problem():
        return "sdpa", f"attention by SDPA: variable-length attention does not run here ({problem})"
    return VARLEN, "variable-length attention without masks"


def _is_plain(model_folder: Path) -> bool:
    """Whether the model's layers are causal attention, in full or through a window, and nothing beside."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(model_folder)
    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    kinds = set(getattr(config, "layer_types", None) or ())
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    return (
        getattr(model, "_supports_flash_attn", False)
        and kinds <= {"full_attention", "sliding_attention"}
        and not capped
        and config.model_type != "gpt_oss"  # its attention has sinks
    )


def _kernel_problem() -> str | None:
    """What stands against the GPU's kernel, found by running it once."""
    import torch

    from tasks.training.varlen import attend

    if not torch.cuda.is_available():
        return None
    rows = torch.zeros(1, 2, 4, 64, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    starts = torch.tensor([0, 1, 4], dtype=torch.int32, device="cuda")
    try:
        attend(None, rows, rows, rows, None, cu_seq_lens_q=starts, max_length_q=3)[0].sum().backward()
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).strip().partition("\n")[0]
    return None


def _as_before(before: Precision) -> tuple[Precision, str]:
    return before, f"{before} weights, as in the checkpoint that the training goes on from"


def _precision_on_cpu(machine: MachineConfig, model_folder: Path) -> tuple[Precision, str]:
    import torch

    if machine.precision != "auto":
        return machine.precision, f"{machine.precision} weights, as configured"
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "fp32", "fp32 weights: this processor emulates bf16, which takes seconds a step"
    seconds = _said_by_the_first(_time_steps(model_folder))
    fastest: Precision = "bf16" if CLEARLY * seconds["bf16"] < seconds["fp32"] else "fp32"
    figures = ", ".join(f"{name} {spent * 1000:.0f} ms" for name, spent in seconds.items())
    return fastest, f"{fastest} weights: {SAMPLE[0] * SAMPLE[1]} tokens forward and backward took {figures}"


def _time_steps(folder: Path) -> dict[str, float]:
    """Seconds by precision, the best of some steps taken in turns, the first ones thrown away."""
    import torch

    from tasks.training.base import load_base
    from tasks.training.lora import new_adapter

    tokens = torch.zeros(SAMPLE, dtype=torch.long)
    bodies = {
        name: new_adapter(load_base(folder, dtype_of(name)), LoraConfig(), seed=0).get_base_model().base_model
        for name in ("fp32", "bf16")
    }
    times: dict[str, list[float]] = {name: [] for name in bodies}
    for _ in range(SAMPLE_STEPS):
        for name, body in bodies.items():
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"):  # as the trainer does
                hidden = body(input_ids=tokens, use_cache=False).last_hidden_state
            hidden.float().sum().backward()
            times[name].append(time.perf_counter() - start)
    return {name: min(spent[1:]) for name, spent in times.items()}


def _said_by_the_first(seconds: dict[str, float]) -> dict[str, float]:
    """What the first process measured, for all: their clocks differ, and they must decide alike."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    if "RANK" not in os.environ:
        return seconds
    PartialState(cpu=True)
    return broadcast_object_list([seconds])[0]


def dtype_of(precision: str) -> "torch.dtype":
    import torch

    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
