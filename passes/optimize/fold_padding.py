"""Fold zero padding into the following convolution."""

from __future__ import annotations

import dataclasses

from torch import fx

from graphprog.ir.graph import Graph
from graphprog.ir.ops import schema_name
from graphprog.passes.base import Pass
from graphprog.rewriting.editor import Editor
from graphprog.spec.registry import spec


@spec("fold-padding")
@dataclasses.dataclass(frozen=True)
class FoldPadding(Pass):
    """Let 2-D convolutions pad by themselves where a zero padding in front is alike on both sides.

    An optimization: the padded copy is never made. Equal up to rounding. Interfaces between the
    two operations vanish.

    Example:
        >>> folded = gp.passes.FoldPadding()(graph)
        >>> assert torch.allclose(folded(images), graph(images), atol=1e-5)
    """

    def run(self, graph: Graph) -> Graph:
        """Fold every padding that only one convolution reads."""
        edit = Editor(graph, str(self))
        for pad in list(edit.code.nodes):
            extra = _symmetric_zeros(pad)
            if extra is None or not _only_convolved(pad):
                continue
            (convolution,) = pad.users
            # input, weight, bias, stride, padding: defaults of what the call leaves out
            given = convolution.args
            full = (*given, *(None, None, None, [1, 1], [0, 0])[len(given) :])
            padding = [own + more for own, more in zip(_pair(full[4]), extra, strict=True)]
            convolution.args = (*full[:4], padding, *full[5:])
            source = pad.args[0]
            assert isinstance(source, fx.Node)
            edit.substitute(pad, source, fused=True)
        return edit.finish()


def _symmetric_zeros(node: fx.Node) -> tuple[int, int] | None:
    """Rows and columns that a zero padding adds on each side, if it does so alike."""
    if schema_name(node) != "aten::pad":
        return None
    given: list[object] = [*node.args[1:], "constant", None]
    sizes, mode, value = given[0], given[1], given[2] if len(node.args) > 3 else None
    plain = isinstance(sizes, list | tuple) and all(isinstance(size, int) for size in sizes)
    if not plain or mode != "constant" or value not in (None, 0.0):
        return None
    assert isinstance(sizes, list | tuple)
    numbers = [int(size) for size in sizes if isinstance(size, int)]
    if len(numbers) != 4 or min(numbers) < 0:
        return None
    left, right, top, bottom = numbers
    return (top, left) if left == right and top == bottom else None


def _only_convolved(pad: fx.Node) -> bool:
    users = list(pad.users)
    if len(users) != 1 or schema_name(users[0]) != "aten::conv2d" or users[0].args[0] is not pad:
        return False
    padding = (*users[0].args, *[None] * 5)[4]
    if users[0].kwargs or pad.kwargs:
        return False
    return padding is None or isinstance(padding, list | tuple)


def _pair(padding: object) -> tuple[int, int]:
    assert isinstance(padding, list | tuple)
    sizes = [int(size) for size in padding]
    return (sizes[0], sizes[-1])
