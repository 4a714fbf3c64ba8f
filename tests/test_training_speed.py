"""What a training knows of its GPU and of its model's weights before the first step, and how a step is shared."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from tasks.training.base import load_base
from tasks.training.speed import flops_per_token, peak_of
from tasks.training.worker import is_out_of_memory
from tests.tiny_models import sft_job


@pytest.mark.parametrize(
    ("gpu", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
    ],
)
def test_a_gpu_is_known_by_the_name_its_driver_gives_it(gpu: str, tflops: float) -> None:
    assert peak_of(gpu) == tflops * 1e12


def test_a_gpu_that_is_only_named_alike_has_no_known_rate() -> None:
    assert peak_of("NVIDIA L40") is None


def test_weights_of_four_bits_count_as_many_as_they_were(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.modules.get("bitsandbytes", True) is None:  # as a training in this process left it
        monkeypatch.delitem(sys.modules, "bitsandbytes")
    from bitsandbytes.nn import Params4bit

    model = load_base(tiny_model, torch.float32).requires_grad_(False)
    whole, layer = flops_per_token(model), model.model.layers[0].mlp.up_proj
    numbers = layer.weight.numel()
    layer.weight = Params4bit(layer.weight.detach(), requires_grad=False, quant_type="nf4").to("cpu")
    assert layer.weight.numel() < numbers
    assert flops_per_token(model) == whole


@pytest.mark.usefixtures("tiny_conf")
@pytest.mark.parametrize(
    ("rows", "most", "processes", "at_once", "accumulation"),
    [(12, 8, 1, 6, 2), (20, 8, 1, 5, 4), (9, 4, 1, 3, 3), (24, 8, 2, 6, 2), (7, 4, 1, 1, 7), (8, 64, 1, 8, 1)],
)
def test_a_step_has_the_rows_that_were_asked_for(
    tmp_path: Path, rows: int, most: int, processes: int, at_once: int, accumulation: int
) -> None:
    job = replace(
        sft_job(tmp_path, tmp_path, tmp_path, machine={"processes": processes}, batch_rows=rows), rows_at_once=most
    )
    assert (job.rows_at_once, job.accumulation) == (at_once, accumulation)
    assert job.rows_at_once * job.accumulation * processes == rows


@pytest.mark.usefixtures("tiny_conf")
def test_rows_that_processes_cannot_share_evenly_are_refused(tmp_path: Path) -> None:
    sentence = r"batch_rows \(16\) cannot be shared evenly by machine.processes \(3\): take batch_rows 18"
    with pytest.raises(ValidationError, match=sentence):
        sft_job(tmp_path, tmp_path, tmp_path, machine={"processes": 3}, batch_rows=16)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_memory_that_ran_out_is_known_by_what_torch_says(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) == is_one
