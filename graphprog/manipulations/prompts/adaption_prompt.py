"""Adaption prompts: attention to a learned prompt, added through a gate that starts at zero."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.checks import require_choice
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.requirements import last_size, require_floats


@spec("adaption-prompt")
@dataclasses.dataclass(frozen=True)
class AdaptionPrompt(SelectiveManipulation):
    """Add ``gate · softmax(Q K(P)ᵀ / √d) V(P)`` to the result of an attention.

    The zero-initialized attention of LLaMA-Adapter (Zhang et al., ICLR 2024). K and V are the
    model's own frozen projections, applied to a learned prompt P; the softmax over the prompt is
    separate from that over the tokens. The gate starts at zero, so a new program does not change
    the source's results. For Llama, before the output projection, with queries rotated as in the
    model::

        AdaptionPrompt(
            at="model.layers.*.self_attn.o_proj:in",
            queries="model.layers.*.self_attn.q_proj:out",
            keys=("source.model.layers.*.self_attn.k_proj.weight",),
            values=("source.model.layers.*.self_attn.v_proj.weight",),
            rotary=("model.rotary_emb:out[0]", "model.rotary_emb:out[1]"),
            heads=32,
        )

    and for GPT-2, as PEFT does, after the output projection; one layer of ``[in, out]`` weights
    projects queries, keys and values::

        layer = "source.transformer.h.*.attn.c_attn"
        AdaptionPrompt(
            at="transformer.h.*.attn.c_proj:out",
            queries="transformer.h.*.attn.c_attn:out",
            keys=(f"{layer}.weight", f"{layer}.bias"),
            transposed=True,
            heads=12,
        )

    The prompt starts as N(0, 1). Key heads may be fewer than query heads.

    Attributes:
        queries: interface of the projected queries [B, T, heads · d]; if keys and values follow
            them on the last axis, the first part is used.
        keys: ``source.<path>`` of the key projection's weight, and of its bias if it has one.
        values: likewise for the value projection; empty if the key layer also projects values.
        heads: number of query heads.
        length: n, number of prompt entries.
        transposed: whether weights are ``[in, out]`` instead of PyTorch's ``[out, in]``.
        rotary: interfaces of cosine and sine [B, T, d] of the rotary embedding (rotated halves);
            without them, queries are not rotated.
        gates: one gate for ``"all"`` heads, or one for ``"each"`` head.
        squash: ``tanh`` of the gates as in the authors' code, or ``none`` as in PEFT.

    Example:
        >>> keys, values = (("source.layers.*.k.weight",), ("source.layers.*.v.weight",))
        >>> part = gp.AdaptionPrompt("layers.*.q:out", keys, values, at="layers.*.out:in", heads=2)
        >>> task = gp.compile(language, gp.Program([part]))
    """

    queries: str
    keys: tuple[str, ...]
    values: tuple[str, ...] = ()
    heads: int = 1
    length: int = 10
    transposed: bool = False
    rotary: tuple[str, ...] = ()
    gates: str = "all"
    squash: str = "none"

    def __post_init__(self) -> None:
        for name, allowed in (("keys", (1, 2)), ("values", (0, 1, 2)), ("rotary", (0, 2))):
            given: object = getattr(self, name)
            paths = (given,) if isinstance(given, str) else tuple(getattr(self, name))
            object.__setattr__(self, name, paths)
            if len(paths) not in allowed:
                raise ProgramError(
                    f"{self.kind}: {name} has {len(paths)} entries, not one of {allowed}: {paths}"
                )
        if self.values and len(self.values) != len(self.keys):
            raise ProgramError(f"{self.kind}: give a bias for both keys and values, or for neither")
        require_choice(self.kind, "gates", self.gates, ("all", "each"))
        require_choice(self.kind, "squash", self.squash, ("none", "tanh"))
        if self.heads < 1 or self.length < 1:
            raise ProgramError(
                f"{self.kind}: heads and length must be at least 1, not {self.heads} and "
                f"{self.length}"
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """Queries, weights, and the rotary embedding."""
        return (self.queries, *self.rotary, *self.keys, *self.values)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for attention outputs [B, T, heads · d] and the inputs of :attr:`reads`.

        Raises:
            InterfaceError: the attention outputs are not floating point.
            ProgramError: heads and widths do not match.
        """
        where = context.where
        require_floats(context.value, where)
        width = last_size(context.value, where)
        weight = context.read[1 + len(self.rotary)]
        inner, outer = (int(size) for size in weight.shape[:: 1 if self.transposed else -1])
        keys = outer if self.values else (outer - width) // 2
        if width % self.heads or keys < 1 or keys % (width // self.heads):
            raise ProgramError(
                f"{where}: {self.heads} heads over {width} entries do not match the {outer} "
                f"entries of the key projection with weights {tuple(weight.shape)}",
                [
                    "set heads= as in the model's configuration",
                    "set transposed=True for [in, out] weights",
                ],
            )
        module = _Attention(self, width, keys)
        module.prompt = nn.Parameter(torch.empty(self.length, inner))
        nn.init.normal_(module.prompt, generator=context.generator)
        return module


class _Attention(nn.Module):
    """Forward: out [B, T, h·d], queries, (cosine, sine), weights, biases -> [B, T, h·d]."""

    prompt: nn.Parameter

    def __init__(self, spec: AdaptionPrompt, width: int, keys: int) -> None:
        super().__init__()
        self.spec = spec
        self.width, self.keys, self.size = width, keys, width // spec.heads
        count = spec.heads if spec.gates == "each" else 1
        self.gate = nn.Parameter(torch.zeros(count))

    def forward(self, out: torch.Tensor, *read: torch.Tensor) -> torch.Tensor:
        """Add the attention of the queries to the prompt."""
        rotary = len(self.spec.rotary)
        queries = read[0][..., : self.width].unflatten(-1, (-1, self.size)).transpose(1, 2)
        if rotary:
            first, second = queries.chunk(2, -1)
            rotated = torch.cat([-second, first], -1)
            queries = queries * read[1].unsqueeze(1) + rotated * read[2].unsqueeze(1)
        keys, values = self._keys_and_values(read[1 + rotary :])
        scores = queries @ keys.transpose(1, 2) / math.sqrt(self.size)
        gate = self.gate.tanh() if self.spec.squash == "tanh" else self.gate
        weights = gate[:, None, None] * scores.softmax(-1, dtype=torch.float32)
        found = weights.to(values.dtype) @ values
        added: torch.Tensor = found.transpose(1, 2).flatten(2).to(out.dtype)
        return out + added

    def _keys_and_values(
        self, tensors: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the prompt, [heads, n, d] each."""
        count = len(self.spec.keys)
        keys = self._project(*tensors[:count])
        if self.spec.values:
            values = self._project(*tensors[count:])
        else:
            keys, values = keys[:, self.width :].chunk(2, -1)
        repeats = self.width // self.keys
        split = [part.unflatten(-1, (-1, self.size)).transpose(0, 1) for part in (keys, values)]
        return split[0].repeat_interleave(repeats, 0), split[1].repeat_interleave(repeats, 0)

    def _project(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        matrix = weight if self.spec.transposed else weight.T
        projected = self.prompt.to(weight.dtype) @ matrix
        return projected if bias is None else projected + bias
