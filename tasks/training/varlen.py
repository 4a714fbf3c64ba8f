"""Nothing computed that no loss asks for: no mask, no padding, no score of a token without a label."""

from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from tasks.training.speed import VARLEN


def register() -> None:
    """Make the attention known to transformers as `VARLEN`; it builds no mask for a name that has none registered."""
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, attend)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention of every row to itself.

    `query` is (rows, heads, tokens, size), padded on the right, where causal attention does not look; or (1, heads,
    tokens, size) with all rows one behind the other, `cu_seq_lens_q` telling where each begins and the last one ends.
    `key` and `value` may have fewer heads. Returns (rows, tokens, heads, size).

    Raises ValueError for a model whose attention does more, such as capping its scores.
    """
    if more := [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]:
        raise ValueError(f"variable-length attention knows no {', '.join(more)}: set machine.fused to false")
    query, key = query.to(value.dtype), key.to(value.dtype)
    if cu_seq_lens_q is not None and query.is_cuda:
        return _attend_by_kernel(query, key, value, cu_seq_lens_q, max_length_q, scaling, sliding_window), None
    lengths = [query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    pieces = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    attended = [_attend_piece(q, k, v, scaling, sliding_window) for q, k, v in pieces]
    return torch.cat(attended, dim=2).transpose(1, 2), None


def _attend_by_kernel(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scaling: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    seen = (window - 1 if window else -1, 0)
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    out = varlen_attn(
        query, key, value, starts, starts, longest, longest, scale=scaling, window_size=seen, enable_gqa=True
    )
    assert isinstance(out, Tensor)
    return out[None]


def _attend_piece(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None) -> Tensor:
    length, mask = query.shape[2], None
    if window and length > window:
        mask = query.new_ones(length, length, dtype=torch.bool).tril().triu(1 - window)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
    )


def without_padding(model: Any) -> None:
    """Let the body of a causal language model compute tokens only, whatever padding a batch has.

    From outside nothing changes: (rows, width) tokens give (rows, width, size) hidden states, zero where there is
    padding. Batches without an attention mask, such as packed ones, pass as they are. The model must have been loaded
    with `VARLEN` attention.
    """
    body = model.base_model
    forward = body.forward

    @wraps(forward)
    def on_tokens(input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        if attention_mask is None:
            return forward(input_ids=input_ids, **kwargs)
        tokens = attention_mask.bool()
        rows = tokens.sum(1)
        starts, longest = pad(rows.cumsum(0), (1, 0)).int(), int(rows.max())
        kwargs |= {
            "input_ids": input_ids[tokens][None],
            "position_ids": (tokens.cumsum(1) - 1)[tokens][None],
            "cu_seq_lens_q": starts,
            "max_length_q": longest,
        }
        outputs = forward(**kwargs)
        hidden = outputs.last_hidden_state[0]
        outputs.last_hidden_state = hidden.new_zeros(*tokens.shape, hidden.shape[-1])
        outputs.last_hidden_state[tokens] = hidden
        return outputs

    body.forward = on_tokens


def score_labelled_tokens() -> None:
    """Let TRL's head score only the tokens of which a loss is taken on a CPU too.

    TRL does so by itself where Triton runs, and elsewhere scores all, for the sake of compilers that want fixed
    shapes (`trl.trainer.utils.add_fused_lm_head`); with a small model that is most of the work.
    """
    from trl.trainer import utils

    utils._use_triton = lambda device: True
