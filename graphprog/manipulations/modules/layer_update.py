"""Changes of the layers of a source that act in the graph: its tensors stay as they are."""

from __future__ import annotations

import dataclasses
import math
import re

import torch
from torch import nn

from graphprog.analysis.layers.affine import AffineLayer, layer_of, layers_behind
from graphprog.errors import InterfaceError, ProgramError
from graphprog.ir.memory.packed import tensor_at
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.checks import require_integer, require_number
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.layers import affine
from graphprog.values.requirements import last_size, require_floats

_ENDS = (":in", ":out", ":weight", ":bias")
_RANGE = re.compile(r"\[-?\d*:-?\d*\]")


@dataclasses.dataclass(frozen=True)
class _LayerUpdate(SelectiveManipulation):
    """Base of manipulations of an affine layer's result that read its input."""

    def __post_init__(self) -> None:
        if not self.at.endswith(_ENDS):
            object.__setattr__(self, "at", f"{self.at}:out")
        if not self.at.endswith(":out"):
            raise ProgramError(
                f"{self.kind} acts on an affine layer, but {self.at!r} is not its result",
                ['name the layer: at="attention[*].q_proj"'],
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """Input of the layer."""
        return (f"{self.layer}:in",)

    @property
    def layer(self) -> str:
        """Name of the layer, with a wildcard for a range."""
        return _RANGE.sub("[*]", self.at.removesuffix(":out"))

    def sizes(self, context: BuildContext) -> tuple[int, int]:
        """Return the widths n and m of a layer [..., n] -> [..., m].

        Raises:
            InterfaceError: the value is not computed by an affine layer, or not of floats.
        """
        result, given, where = context.value, context.read[0], context.where
        for value in (result, given):
            require_floats(value, where)
        if context.graph is not None:
            nodes = context.graph.nodes
            if not layers_behind(nodes[context.nodes[0]], {*nodes.values()})[0]:
                raise InterfaceError(
                    f"{where} is not the result of an affine layer, but {self.kind} changes one",
                    ["print(graph.interfaces()) shows the layers", 'at="attention[*].q_proj"'],
                )
        return last_size(given, where), last_size(result, where)


@spec("low-rank-update")
@dataclasses.dataclass(frozen=True)
class LowRankUpdate(_LayerUpdate):
    """Change the weight of an affine layer by a product of low rank: ``W + (alpha/rank) · B A``.

    LoRA of Hu et al., ICLR 2022: ``y + (alpha/rank) · B (A x)`` of the input x and the result y of
    the layer. With ``decomposed`` it is DoRA of Liu et al., ICML 2024: the changed weight, with its
    rows scaled to learned lengths, which start as those of W; gradients also flow through the
    lengths of the changed rows, which the paper leaves out to save memory. A starts as U(±1/√n), B
    at zero, so a new program changes nothing.

    Attributes:
        at: the layer, such as ``attention[*].q_proj``, or its output.
        rank: r, at most the widths n and m of the layer.
        alpha: the update is scaled by alpha/rank.
        decomposed: whether lengths and directions of rows change separately.

    Example:
        >>> task = gp.compile(language, gp.Program([gp.LowRankUpdate(at="mlp[*].up_proj", rank=2)]))
        >>> assert torch.equal(task(ids), language(ids))  # a fresh one changes nothing
    """

    rank: int = 8
    alpha: float = 8.0
    decomposed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self.kind, "rank", self.rank, 1)
        require_number(self.kind, "alpha", self.alpha, 0)

    @property
    def reads(self) -> tuple[str, ...]:
        """Input of the layer, and its weight if lengths and directions change."""
        weight = (f"{self.layer}:weight",) if self.decomposed else ()
        return (*super().reads, *weight)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a result [..., m], an input [..., n] and the weight.

        Raises:
            InterfaceError: there is no affine layer there.
            ProgramError: the rank is above n or m.
        """
        inputs, outputs = self.sizes(context)
        if self.rank > min(inputs, outputs):
            raise ProgramError(
                f"{context.where}: rank {self.rank} is above the width "
                f"{min(inputs, outputs)} of the layer {inputs} -> {outputs}",
                [f"rank={min(inputs, outputs)} or less"],
            )
        down = affine(inputs, self.rank, context.generator, bias=False)
        up = affine(self.rank, outputs, context.generator, bias=False, zero=True)
        scale = self.alpha / self.rank
        if not self.decomposed:
            return _LowRank(down, up, scale)
        weight, bias, transposed = _tensors(context)
        return _Decomposed(down, up, scale, weight, bias, transposed)


class _LowRank(nn.Module):
    """Forward: result [..., m], input [..., n] -> [..., m]."""

    def __init__(self, down: nn.Module, up: nn.Module, scale: float) -> None:
        super().__init__()
        self.down, self.up, self.scale = down, up, scale

    def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Add the update."""
        added: torch.Tensor = self.up(self.down(x))
        return y + (added if self.scale == 1.0 else added * self.scale)


class _Decomposed(nn.Module):
    """Forward: result [..., m], input [..., n], weight -> [..., m]."""

    bias: torch.Tensor | None

    def __init__(
        self,
        down: nn.Linear,
        up: nn.Linear,
        scale: float,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        transposed: bool,
    ) -> None:
        super().__init__()
        self.down, self.up, self.scale, self.transposed = down, up, scale, transposed
        rows = weight.T if transposed else weight
        self.length = nn.Parameter(torch.linalg.vector_norm(rows.float(), dim=1))
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Compute W x again from the result, and scale the rows of the changed weight."""
        rows = (weight.T if self.transposed else weight).float()
        change = (self.up.weight @ self.down.weight) * self.scale
        ratio = (self.length / torch.linalg.vector_norm(rows + change, dim=1)).to(y.dtype)
        product = y if self.bias is None else y - self.bias
        added = self.up(self.down(x)) * self.scale
        changed: torch.Tensor = y + (ratio - 1) * product + ratio * added
        return changed


def _tensors(context: BuildContext) -> tuple[torch.Tensor, torch.Tensor | None, bool]:
    """Return the weight and bias of the layer at a place, and whether the weight is transposed.

    Raises:
        InterfaceError: another part has changed its result before.
    """
    graph = context.graph
    layer: AffineLayer | None = None if graph is None else layer_of(graph.nodes[context.nodes[0]])
    if graph is None or layer is None:
        raise InterfaceError(
            f"{context.where} is not the plain result of an affine layer, so its rows have no "
            "lengths to learn",
            ["put the part with decomposed=True first", "decomposed=False"],
        )
    weight, bias = (
        None if node is None else tensor_at(graph.weights, str(node.target))
        for node in (layer.weight, layer.bias)
    )
    assert weight is not None
    return weight, None if bias is None else bias.clone(), layer.transposed


@spec("vector-update")
@dataclasses.dataclass(frozen=True)
class VectorUpdate(_LayerUpdate):
    """Change a weight by random frozen matrices between learned vectors: ``W + Λ_b B Λ_d A``.

    VeRA of Kopiczko et al., ICLR 2024. A and B are drawn from ``seed``, so layers of equal widths
    share them, as in the paper; they are saved with the program. d starts at ``start``, b at zero,
    so a new program changes nothing. Each layer trains rank + m numbers.

    Attributes:
        at: the layer, such as ``attention[*].q_proj``, or its output.
        rank: r, width of the random projection; it may exceed those of the layer.
        start: initial value of d.
        seed: seed of A and B.

    Example:
        >>> part = gp.VectorUpdate(at="attention[*].q_proj", rank=16)
        >>> task = gp.compile(language, gp.Program([part]))
        >>> assert torch.equal(task(ids), language(ids))  # a fresh one changes nothing
    """

    rank: int = 256
    start: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self.kind, "rank", self.rank, 1)
        require_integer(self.kind, "seed", self.seed, 0)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a result [..., m] and an input [..., n].

        Raises:
            InterfaceError: there is no affine layer there.
        """
        return _Vectors(self, *self.sizes(context))


class _Vectors(nn.Module):
    """Forward: result [..., m], input [..., n] -> [..., m]."""

    down: torch.Tensor
    up: torch.Tensor

    def __init__(self, part: VectorUpdate, inputs: int, outputs: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(part.seed)
        for name, shape in (("down", (part.rank, inputs)), ("up", (outputs, part.rank))):
            bound = math.sqrt(6 / shape[1])  # Kaiming
            self.register_buffer(
                name, torch.empty(shape).uniform_(-bound, bound, generator=generator)
            )
        self.inner = nn.Parameter(torch.full((part.rank,), part.start))
        self.outer = nn.Parameter(torch.zeros(outputs))

    def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Add the update."""
        inner = (x @ self.down.T.to(x.dtype)) * self.inner.to(x.dtype)
        return y + (inner @ self.up.T.to(x.dtype)) * self.outer.to(x.dtype)


@spec("weight-update")
@dataclasses.dataclass(frozen=True)
class WeightUpdate(Manipulation):
    """Train a weight or bias of the source as a whole: the layer reads ``W + Δ``.

    At ``norm[*]:weight`` and ``norm[*]:bias`` this is the tuning of norms, at biases BitFit, at the
    weights of the last blocks partial fine-tuning. Δ starts at zero; the source keeps W. Another
    layer that shares W keeps reading W.

    Attributes:
        at: a weight or bias, such as ``norm[*]:weight`` or ``head:bias``.

    Example:
        >>> task = gp.compile(language, gp.Program([gp.WeightUpdate(at="mlp[*].up_proj:bias")]))
        >>> assert torch.equal(task(ids), language(ids))  # a fresh one changes nothing
    """

    def __post_init__(self) -> None:
        if not self.at.endswith((":weight", ":bias")):
            raise ProgramError(
                f"{self.kind} changes a tensor of the source, but {self.at!r} is not one",
                ['name the tensor: at="norm[*]:weight" or at="head:bias"'],
            )

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a tensor of the source.

        Raises:
            InterfaceError: it is not of floats.
        """
        require_floats(context.value, context.where)
        return _Change(context.value)


class _Change(nn.Module):
    """Forward: W -> W + Δ."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(tuple(int(size) for size in weight.shape)))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Add the change."""
        return weight + self.value.to(weight.dtype)


@spec("token-update")
@dataclasses.dataclass(frozen=True)
class TokenUpdate(SelectiveManipulation):
    """Train the embeddings of some tokens: ``E[t] + Δ_t`` where the input has the token t.

    The rows of a table that belong to some tokens, such as new ones; the others stay. Δ starts at
    zero and is added after a factor that the model applies to embeddings. An output layer that
    shares the table keeps reading the source's rows.

    Attributes:
        tokens: ids of the tokens.
        ids: input of the ids; ``input:input_ids`` of a model with several inputs.
        at: where the embedded tokens are.

    Example:
        >>> task = gp.compile(language, gp.Program([gp.TokenUpdate((3, 7))]))
        >>> assert torch.equal(task(ids), language(ids))  # a fresh one changes nothing
    """

    tokens: tuple[int, ...]
    ids: str = "input"
    at: str = dataclasses.field(default="tokens", kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))
        for token in self.tokens:
            require_integer(self.kind, "tokens", token, 0)
        if not self.tokens or len(set(self.tokens)) != len(self.tokens):
            raise ProgramError(f"{self.kind}: tokens must be different ids, not {self.tokens}")

    @property
    def reads(self) -> tuple[str, ...]:
        """The ids."""
        return (self.ids,)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for embedded tokens [B, S, d] and ids [B, S].

        Raises:
            InterfaceError: these are not embedded tokens and their ids.
        """
        value, (ids,), where = context.value, context.read, context.where
        require_floats(value, where)
        if ids.dtype not in (torch.int64, torch.int32) or ids.ndim != value.ndim - 1:
            raise InterfaceError(
                f"{where}: {self.ids!r} does not hold the ids of these tokens",
                ['name the input of ids: ids="input:input_ids"'],
            )
        return _Rows(self.tokens, last_size(value, where))


class _Rows(nn.Module):
    """Forward: embedded tokens [B, S, d], ids [B, S] -> [B, S, d]."""

    ids: torch.Tensor

    def __init__(self, tokens: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.register_buffer("ids", torch.tensor(tokens), persistent=False)
        self.value = nn.Parameter(torch.zeros(len(tokens), width))

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Add the changes of the tokens that are there."""
        chosen = (ids.unsqueeze(-1) == self.ids).to(x.dtype)
        return x + chosen @ self.value.to(x.dtype)
