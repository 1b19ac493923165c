"""Attention as arithmetic, which autograd differentiates and ONNX has."""

from __future__ import annotations

import torch

_HIDDEN = -1e30


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """``scaled_dot_product_attention`` without dropout; arguments and result are its own."""
    if enable_gqa:
        key, value = (_for_heads(part, query.shape[-3]) for part in (key, value))
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        rows, columns = (
            torch.arange(length, device=query.device) for length in (query.shape[-2], key.shape[-2])
        )
        attn_mask = columns <= rows[:, None]
    if attn_mask is None:
        return scores.softmax(-1) @ value
    if attn_mask.dtype is torch.bool:
        visible = attn_mask
        scores = scores.where(attn_mask, _HIDDEN)
    else:
        visible = attn_mask > -torch.inf
        scores = scores + attn_mask.clamp_min(_HIDDEN)
    found = scores.softmax(-1) @ value
    # queries that see nothing get zeros
    return found if is_causal else found * visible.any(-1, True).to(found.dtype)


def _for_heads(part: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values [..., G, S, d] repeated for the heads of the queries, [..., H, S, d]."""
    return part.repeat_interleave(heads // part.shape[-3], -3)
