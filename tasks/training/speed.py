"""How a model is trained fast on this machine: precision, attention, kernels; each with its reason."""

import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from tasks.config.training import MachineConfig

if TYPE_CHECKING:
    import torch

PEAK_TFLOPS = {"H200": 989, "H100": 989, "H20": 148, "B200": 2250, "A100": 312, "L40S": 362, "A10G": 70, "L4": 121}
"""Dense bf16 matrix rate by GPU, in 10¹² operations a second, as in NVIDIA's data sheets."""
SAMPLE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Speed:
    """What was decided, and why, in sentences that are logged once."""

    precision: Literal["bf16", "fp32"]
    attention: str
    liger: bool
    on_gpu: bool
    reasons: tuple[str, ...]


def choose_speed(machine: MachineConfig, model_folder: Any) -> Speed:
    """Decide for the device that this process sees."""
    import torch

    if not torch.cuda.is_available():
        on_cpu, why = _precision_on_cpu(machine, model_folder)
        return Speed(on_cpu, "sdpa", False, False, (why, "attention by SDPA: there is no GPU"))
    precision: Literal["bf16", "fp32"] = "fp32" if machine.precision == "fp32" else "bf16"
    attention, why_attention = _attention_on_gpu(machine)
    liger = machine.fused and find_spec("liger_kernel") is not None
    return Speed(
        precision,
        attention,
        liger,
        True,
        (
            f"{precision} weights on {torch.cuda.get_device_name()}",
            why_attention,
            "fused kernels by Liger" if liger else "no fused kernels: liger-kernel is not installed or `fused` is off",
        ),
    )


def peak_flops() -> float | None:
    """Matrix operations a second that this process's GPU can do in bf16; None where it is not known."""
    import torch

    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((rate * 1e12 for model, rate in PEAK_TFLOPS.items() if model in name.split()), None)


def flops_per_token(model: Any) -> float:
    """Matrix operations of training for one token, attention aside.

    Two for each weight forward and two backward for the gradient of the activations; only trained weights take two
    more for their own gradient (Kaplan et al., "Scaling Laws for Neural Language Models", 2020, section 2.1).
    """
    embedding = model.get_input_embeddings().weight
    counts = [(p.numel(), p.requires_grad) for p in model.parameters() if p is not embedding]
    tied = model.get_output_embeddings() is not None and model.get_output_embeddings().weight is embedding
    head = embedding.numel() if tied else 0
    return sum(count * (6 if trained else 4) for count, trained in counts) + 4 * head


def _attention_on_gpu(machine: MachineConfig) -> tuple[str, str]:
    if machine.fused and find_spec("flash_attn_interface"):
        return "flash_attention_3", "variable-length attention by FlashAttention 3"
    if machine.fused and find_spec("flash_attn"):
        return "flash_attention_2", "variable-length attention by FlashAttention 2"
    return "sdpa", "attention by SDPA: flash-attn is not installed or `fused` is off"


def _precision_on_cpu(machine: MachineConfig, model_folder: Any) -> tuple[Literal["bf16", "fp32"], str]:
    if machine.precision != "auto":
        return machine.precision, f"{machine.precision} weights, as configured"
    seconds = {name: _time_a_step(model_folder, name) for name in ("fp32", "bf16")}
    fastest: Literal["bf16", "fp32"] = "bf16" if seconds["bf16"] < seconds["fp32"] else "fp32"
    figures = ", ".join(f"{name} {spent * 1000:.0f} ms" for name, spent in seconds.items())
    return fastest, f"{fastest} weights: {SAMPLE_TOKENS} tokens forward and backward took {figures}"


def _time_a_step(folder: Any, precision: str) -> float:
    """Best of three, in seconds, with the first one thrown away."""
    import torch

    from tasks.training.base import load_base

    model = load_base(folder, dtype_of(precision))
    tokens = torch.zeros((1, SAMPLE_TOKENS), dtype=torch.long)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        model(input_ids=tokens, labels=tokens).loss.backward()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def dtype_of(precision: str) -> "torch.dtype":
    import torch

    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
