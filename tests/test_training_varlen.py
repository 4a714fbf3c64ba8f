"""Rows computed without padding give what they give one by one."""

from copy import deepcopy
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, MistralConfig, Qwen3Config

from tasks.training.speed import VARLEN
from tasks.training.varlen import attend, register, score_labelled_tokens, without_padding

ROWS = ([5, 6, 7, 8, 9, 10, 11], [12, 13], [14, 15, 16, 17])
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "qwen": Qwen3Config(**SHAPE),
    "a window of three tokens": MistralConfig(**SHAPE, sliding_window=3),
}


def models(config: str, device: str, dtype: torch.dtype) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same weights, with plain attention and with ours."""
    register()
    torch.manual_seed(0)
    plain, dense = (
        AutoModelForCausalLM.from_config(deepcopy(CONFIGS[config]), attn_implementation=attention).to(device, dtype)
        for attention in ("eager", VARLEN)
    )
    dense.load_state_dict(plain.state_dict())
    return plain, dense


def padded(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, ROWS))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in ROWS], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ROWS], device=device)
    return ids, mask


def gradients(model: torch.nn.Module, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    logits.float().pow(2).sum().backward()
    return {name: weight.grad.float() for name, weight in model.named_parameters()}


def same_as_alone(config: str, device: str, dtype: torch.dtype, tolerance: float) -> None:
    plain, dense = models(config, device, dtype)
    without_padding(dense)
    alone = torch.cat([plain(input_ids=torch.tensor([row], device=device)).logits[0] for row in ROWS])
    ids, mask = padded(device)
    together = dense(input_ids=ids, attention_mask=mask).logits[mask.bool()]
    assert_close(together, alone, rtol=tolerance, atol=tolerance)
    expected, found = gradients(plain, alone), gradients(dense, together)
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        assert_close(found[name], gradient, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("config", CONFIGS)
def test_rows_in_a_batch_give_the_logits_and_gradients_that_they_give_alone(config: str) -> None:
    same_as_alone(config, "cpu", torch.float32, 1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("config", CONFIGS)
def test_the_kernel_of_a_gpu_agrees_with_plain_attention(config: str) -> None:
    same_as_alone(config, "cuda", torch.bfloat16, 5e-2)


@pytest.mark.parametrize("config", CONFIGS)
def test_padding_on_the_right_needs_no_mask(config: str) -> None:
    plain, other = models(config, "cpu", torch.float32)
    ids, mask = padded("cpu")
    expected = plain(input_ids=ids, attention_mask=mask).logits[mask.bool()]
    assert_close(other(input_ids=ids, attention_mask=mask).logits[mask.bool()], expected, rtol=1e-4, atol=1e-4)


def test_rows_that_are_packed_already_do_not_see_one_another() -> None:
    plain, dense = models("llama", "cpu", torch.float32)
    alone = torch.cat([plain(input_ids=torch.tensor([row])).logits[0] for row in ROWS])
    packed = dense(
        input_ids=torch.tensor([list(chain(*ROWS))]),
        position_ids=torch.tensor([[place for row in ROWS for place in range(len(row))]]),
        cu_seq_lens_q=torch.tensor([0, 7, 9, 13], dtype=torch.int32),
        max_length_q=7,
    ).logits[0]
    assert_close(packed, alone, rtol=1e-4, atol=1e-4)


def test_a_model_that_caps_its_scores_is_refused() -> None:
    query = torch.zeros(1, 1, 1, 16)
    starts = torch.tensor([0, 1], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"machine\.fused"):
        attend(None, query, query, query, None, cu_seq_lens_q=starts, max_length_q=1, softcap=30.0)


def test_a_head_that_scores_labelled_tokens_only_gives_the_same_loss(tiny_model: Path) -> None:
    from trl.trainer import utils

    def score() -> tuple[torch.Tensor, torch.Tensor]:
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        utils.add_fused_lm_head(model, outputs=("log_probs", "entropy"))
        ids = torch.arange(20)[None] % len(AutoTokenizer.from_pretrained(tiny_model))
        labels = ids.masked_fill(ids % 3 != 0, -100)
        outputs = model(input_ids=ids, labels=labels, fused_lm_head=True)
        outputs.loss.backward()
        return outputs.log_probs.detach(), model.get_input_embeddings().weight.grad

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_use_triton", utils._use_triton)
        expected = score()
        score_labelled_tokens()
        found = score()
    assert_close(found, expected)
