"""Initial values of learned entries: tokens, activations, given tensors.

``gp.Concatenative(at="tokens", length=20, init="vocabulary")`` starts from random tokens;
``init=gp.initializers.text(tokenizer, "Is this review kind?")`` from a text. Both run the source
graph from token ids to the interface, so the values include its scaling, norms, positions and
dtype. The token ids and the random seed are part of the program's text.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from graphprog.errors import ProgramError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import ancestors, schema_name
from graphprog.spec.checks import require_choice
from graphprog.spec.registry import Spec, spec
from graphprog.values.context import BuildContext
from graphprog.values.source_activations import Lookup, observed

__all__ = ["Activations", "Given", "Init", "PatchUniform", "Tokens", "Vocabulary", "text"]


@dataclasses.dataclass(frozen=True)
class Init(Spec):
    """Base of initializers that have options.

    Example:
        >>> init = gp.initializers.Vocabulary(among=100)
        >>> assert isinstance(init, gp.initializers.Init)
        >>> prompt = gp.Concatenative(at="tokens", length=3, init=init)
    """

    @abstractmethod
    def values(self, context: BuildContext) -> torch.Tensor:
        """Compute the initial values, float32, of shape ``context.shape``."""


@spec("from-tokens")
@dataclasses.dataclass(frozen=True)
class Tokens(Init):
    """Initialize with the source's values of given tokens at the interface.

    Attributes:
        ids: token ids, one per entry; a tuple of several is averaged to one entry. Surplus ids are
            dropped; too few are repeated from the first one.

    Example:
        >>> init = gp.initializers.Tokens((72, 105, (33, 46)))  # the third is a mean of two
        >>> prompt = gp.Concatenative(at="tokens", length=3, init=init)
        >>> task = gp.compile(language, gp.Program([prompt]))
    """

    ids: tuple[int | tuple[int, ...], ...]

    def __post_init__(self) -> None:
        ids = tuple(_plain(item) for item in _plain(self.ids))
        object.__setattr__(self, "ids", ids)
        if not ids or any(item == () for item in ids):
            raise ProgramError(
                "there are no tokens to start from", ["give ids: Tokens((101, 2003, 102))"]
            )

    def values(self, context: BuildContext) -> torch.Tensor:
        """One entry per token or group of tokens.

        Raises:
            ProgramError: the interface does not depend on token ids, or an id is out of range.
        """
        source = Lookup.of(context.graph, context.where)
        count = _count(context)
        groups = [item if isinstance(item, tuple) else (item,) for item in self.ids]
        chosen = [groups[number % len(groups)] for number in range(count)]
        rows = source.rows(context, [number for group in chosen for number in group])
        means = [part.mean(0) for part in rows.split([len(group) for group in chosen])]
        return context.placed(torch.stack(means) if means else rows)


@spec("from-vocabulary")
@dataclasses.dataclass(frozen=True)
class Vocabulary(Init):
    """Initialize with the source's values of random tokens; short: ``init="vocabulary"``.

    Attributes:
        among: draw only from the first ``among`` ids, such as the 5,000 most common of a
            vocabulary sorted by frequency (Lester et al., EMNLP 2021); None draws from all.

    Example:
        >>> init = gp.initializers.Vocabulary(among=100)
        >>> prompt = gp.Concatenative(at="tokens", length=3, init=init)
        >>> program = gp.Program([prompt])
    """

    among: int | None = None

    def __post_init__(self) -> None:
        if self.among is not None and self.among < 1:
            raise ProgramError(f"among={self.among} leaves no tokens; it must be at least 1")

    def values(self, context: BuildContext) -> torch.Tensor:
        """Entries of distinct tokens, if the vocabulary is large enough."""
        source = Lookup.of(context.graph, context.where)
        count, size = _count(context), min(source.size, self.among or source.size)
        return context.placed(source.rows(context, _drawn(count, size, context.generator).tolist()))


@spec("from-activations")
@dataclasses.dataclass(frozen=True, eq=False)
class Activations(Init):
    """Initialize with the source's activations at the interface for real examples.

    Attributes:
        inputs: the source's tensor inputs, in order. They are not saved with the program.
        order: ``random`` draws entries of all examples, ``first`` takes them in order.

    Example:
        >>> init = gp.initializers.Activations(ids, order="first")
        >>> prompt = gp.Concatenative(at="tokens", length=3, init=init)
        >>> program = gp.Program([prompt])
    """

    inputs: tuple[torch.Tensor, ...]
    order: str = "random"

    def __post_init__(self) -> None:
        given: object = self.inputs
        tensors = (given,) if isinstance(given, torch.Tensor) else tuple(self.inputs)
        object.__setattr__(self, "inputs", tensors)
        require_choice(self.kind, "order", self.order, ("random", "first"))

    def values(self, context: BuildContext) -> torch.Tensor:
        """Entries of the examples, repeated if there are too few.

        Raises:
            DataError: the examples do not match the inputs of the source.
        """
        rows = observed(context, self.inputs)
        count = _count(context)
        if self.order == "random":
            return context.placed(rows[_drawn(count, len(rows), context.generator)])
        return context.placed(rows[torch.arange(count) % len(rows)])


@spec("from-tensor")
@dataclasses.dataclass(frozen=True, eq=False)
class Given(Init):
    """Initialize with a given tensor of exactly the shape of the entries: [n, d] at ``tokens``.

    Example:
        >>> init = gp.initializers.Given(torch.zeros(3, 16))
        >>> prompt = gp.Concatenative(at="tokens", length=3, init=init)
        >>> program = gp.Program([prompt])
    """

    tensor: torch.Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.tensor, torch.Tensor):
            raise ProgramError(f"Given takes a tensor, not a {type(self.tensor).__name__}")
        object.__setattr__(self, "tensor", self.tensor.detach().clone())

    def values(self, context: BuildContext) -> torch.Tensor:
        """The tensor, in float32."""
        if tuple(self.tensor.shape) != context.shape:
            raise ProgramError(
                f"{context.where}: the initial values have shape {tuple(self.tensor.shape)}, "
                f"but the entries have {context.shape}"
            )
        return self.tensor.to(torch.float32)


@spec("patch-uniform")
@dataclasses.dataclass(frozen=True)
class PatchUniform(Init):
    """Uniform initial values of VPT prompts, U(±√(6 / (c·p² + d))), the bound of a patch embedding.

    Jia et al., ECCV 2022. d is the last axis of the interface.

    Attributes:
        size: p, side length of a patch in pixels; 0 takes c·p² from the source: the number of
            inputs of the convolution that makes patches of width d. Without one, p is 16.
        channels: c, number of channels of the image.

    Example:
        >>> init = gp.initializers.PatchUniform(size=16, channels=3)
        >>> prompt = gp.Concatenative(at="tokens", length=3, init=init)
        >>> program = gp.Program([prompt])
    """

    size: int = 16
    channels: int = 3

    def values(self, context: BuildContext) -> torch.Tensor:
        """Uniform numbers."""
        width = context.shape[-1]
        inputs = None if self.size else _patch_inputs(context, width)
        inputs = inputs or self.channels * (self.size or 16) ** 2
        bound = math.sqrt(6 / (inputs + width))
        return torch.empty(context.shape).uniform_(-bound, bound, generator=context.generator)


def _patch_inputs(context: BuildContext, width: int) -> int | None:
    """Return the number of inputs of each output of the patch embedding before an interface.

    None if no convolution makes patches of this width.
    """
    if context.graph is not None:
        before = {part for name in context.nodes for part in ancestors(context.graph.nodes[name])}
        for node in context.graph.code.nodes:
            if node in before and schema_name(node).startswith("aten::conv"):
                kernel = [int(size) for size in fake_tensor(node.args[1]).shape]
                if kernel[0] == width and math.prod(kernel[2:]) > 1:
                    return math.prod(kernel[1:])
    return None


def text(
    tokenizer: Callable[[str], Any], texts: str | Iterable[str], average: bool = False
) -> Tokens:
    """Make an initializer from the tokens of one or several texts, such as class names.

    Args:
        tokenizer: returns ids of a text, or a mapping with ``input_ids``. To leave out special
            tokens: ``lambda text: tokenizer(text, add_special_tokens=False)``.
        texts: one text or several, whose tokens are concatenated.
        average: whether each text becomes one entry, the mean of its tokens.

    Example:
        >>> init = gp.initializers.text(tokenizer, "Is it?")
        >>> init.ids
        (73, 115, 32, 105, 116, 63)
    """
    found: list[int | tuple[int, ...]] = []
    for one in (texts,) if isinstance(texts, str) else texts:
        ids = tokenizer(one)
        ids = ids["input_ids"] if hasattr(ids, "keys") else getattr(ids, "ids", ids)
        ids = torch.as_tensor(ids).reshape(-1).tolist()
        found += [tuple(ids)] if average else ids
    return Tokens(tuple(found))


def _count(context: BuildContext) -> int:
    """Number of entries."""
    if context.axis is None:
        raise ProgramError(
            f"{context.where}: this value does not consist of entries that tokens can initialize",
            ["use gp.Concatenative(at=..., length=..., init=...)"],
        )
    return context.shape[context.axis - 1]


def _drawn(count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Random numbers below ``size`` [count], distinct if ``size`` is large enough."""
    rounds = [torch.randperm(size, generator=generator) for _ in range(0, max(count, 1), size)]
    return torch.cat(rounds)[:count]


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, Sequence):
        return tuple(value)
    return int(value)
