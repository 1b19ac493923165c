"""One program per row: a graph whose program tensors have a leading axis of rows.

What depends on the program alone is computed once a row. Where it meets values of the source, each
row of those meets its own; from there on the source computes what it always does. Every operation
is mapped over rows by ``torch.func.vmap``, so none has a rule of its own here but those that vmap
cannot trace for any number of rows.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import fx, nn
from torch.fx.traceback import preserve_node_meta, set_current_meta
from torch.utils import _pytree as pytree

from graphprog.errors import BackendError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.printing import module_path, operator_name


@dataclasses.dataclass(frozen=True)
class PerRow:
    """A value of the program, with a leading axis of rows [R, *S] unknown to the graph."""

    value: torch.Tensor


class ProgramRows(nn.Module):
    """Forward: inputs of a graph, a program number a row [B] int64, then stacked tensors [N, *S].

    Args:
        module: the graph, runnable.
        names: of the tensors that come stacked, in their order.
        symbol: size of the batch in the graph's values.
        padded: whether programs have different numbers of classes. Then [N] int64, how many each
            has, comes between numbers and stacks, and logits [B, K] of others are -inf.
    """

    def __init__(
        self, module: fx.GraphModule, names: Sequence[str], symbol: sympy.Symbol, padded: bool
    ) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(names)
        self.symbol = symbol
        self.padded = padded

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of the graph, each row with its own program."""
        first = len(given) - len(self.names)
        count = first - 1 - self.padded
        numbers, stacks = given[count], given[first:]
        rows = {
            name: PerRow(torch.index_select(stack, 0, numbers))
            for name, stack in zip(self.names, stacks, strict=True)
        }
        with preserve_node_meta():  # the paths of modules
            outputs = _Interpreter(self.module, rows, self.symbol).run(*given[:count])
        results = tuple(item.value if isinstance(item, PerRow) else item for item in outputs)
        if not self.padded:
            return results
        (logits,) = results
        classes = torch.arange(logits.shape[1], device=logits.device)
        absent = classes >= torch.index_select(given[first - 1], 0, numbers)[:, None]
        return (logits.masked_fill(absent, float("-inf")),)


class _Interpreter(fx.Interpreter):
    """Runs a graph with some of its tensors per row."""

    def __init__(
        self, module: fx.GraphModule, rows: Mapping[str, PerRow], symbol: sympy.Symbol
    ) -> None:
        super().__init__(module)
        self.extra_traceback = False  # refusals name the operation
        self.rows = rows
        self.symbol = symbol

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A tensor of the graph, or that of each row."""
        return self.rows[target] if target in self.rows else super().get_attr(target, args, kwargs)

    def run_node(self, node: fx.Node) -> Any:
        """Run an operation, mapped over rows if an operand is per row."""
        read = [self.env[one] for one in node.all_input_nodes]
        per_row = any(isinstance(leaf, PerRow) for leaf in pytree.tree_leaves(read))
        if node.op != "call_function" or node.target is operator.getitem or not per_row:
            return super().run_node(node)
        with set_current_meta(node):
            return self._by_row(node)

    def _by_row(self, node: fx.Node) -> Any:
        leaves, structure = pytree.tree_flatten(fake_tensor(node))
        outs = [self._batch_axis(node, leaf) for leaf in leaves]
        places: dict[fx.Node, int] = {}
        rows: list[torch.Tensor] = []
        for one in node.all_input_nodes:
            value = self.env[one]
            if isinstance(value, PerRow):
                places[one] = len(rows)
                rows.append(value.value)
            elif (axis := self._batch_axis(one, fake_tensor(one))) is not None:
                places[one] = len(rows)
                rows.append(value.movedim(axis, 0).unsqueeze(axis + 1))

        target: Any = node.target
        own = _BY_ROW.get(target)

        def of_row(one: fx.Node, given: Sequence[torch.Tensor]) -> Any:
            if one in places:
                return given[places[one]]
            value = self._of_one_row(node, one)
            shared = own is not None and isinstance(value, torch.Tensor)
            return value.expand(rows[0].shape[0], *value.shape) if shared else value

        def call(*given: torch.Tensor) -> Any:
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda one: of_row(one, given))
            return (own or target)(*args, **kwargs)

        try:
            found = call(*rows) if own is not None else torch.func.vmap(call)(*rows)
        except RuntimeError as error:
            reason = next(iter(str(error).splitlines()), "")
            raise _refusal(node, f"torch does not map it over rows: {reason:.200}") from error
        self._require_any_number(node, rows)
        results = [
            PerRow(value) if axis is None else value.squeeze(axis + 1).movedim(0, axis)
            for value, axis in zip(pytree.tree_leaves(found), outs, strict=True)
        ]
        return pytree.tree_unflatten(results, structure)

    def _batch_axis(self, node: fx.Node, value: Any) -> int | None:
        """The axis of the batch; None where there is none.

        Raises:
            BackendError: the batch is part of an axis, or there twice.
        """
        if not isinstance(value, torch.Tensor):
            return None
        sizes = [expression(size) for size in value.shape]
        axes = [axis for axis, size in enumerate(sizes) if self.symbol in size.free_symbols]
        if len(axes) > 1 or any(sizes[axis] != self.symbol for axis in axes):
            shape = ",".join(map(str, sizes))
            raise _refusal(node, f"its value [{shape}] has no axis that is the batch alone")
        return axes[0] if axes else None

    def _of_one_row(self, node: fx.Node, one: fx.Node) -> Any:
        """An argument that all rows share, for a batch of one row."""
        if not isinstance(one.meta.get("val"), torch.SymInt):
            return self.env[one]
        size = expression(fake_tensor(one))
        if size != self.symbol and self.symbol in size.free_symbols:
            raise _refusal(node, f"it is given the size {size}, of which the batch is a part")
        return 1 if size == self.symbol else self.env[one]

    def _require_any_number(self, node: fx.Node, rows: Sequence[torch.Tensor]) -> None:
        """Refuse operations traced for a fixed number of rows."""
        size: Any = rows[0].shape[0]
        if isinstance(size, torch.SymInt) and expression(size).is_number:
            raise _refusal(node, "torch maps it over a fixed number of rows only")


def expression(size: Any) -> sympy.Expr:
    """A size as an expression of the graph's symbols."""
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _refusal(node: fx.Node, reason: str) -> BackendError:
    path = module_path(node)
    return BackendError(
        f"{operator_name(node)}{f' in {path}' if path else ''} cannot have one program per row: "
        f"{reason}",
        ['export(..., program="overridable"), which serves one program per run'],
    )


def _index_select(values: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    """Of each row its own entries: values [B, *S], index [B, n], dim of S."""
    axis = dim % (values.ndim - 1) + 1
    shape, sizes = [1] * values.ndim, list(values.shape)
    shape[0], shape[axis] = index.shape
    sizes[axis] = index.shape[1]
    return torch.gather(values, axis, index.reshape(shape).expand(sizes))


def _linear(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Each row's own affine map: values [B, *S, n], weight [B, m, n], bias [B, m]."""
    lone = values.ndim == 2
    values = values.unsqueeze(1) if lone else values
    between = [1] * (values.ndim - 3)
    turned = weight.transpose(1, 2)
    result = values @ turned.reshape([weight.shape[0], *between, *turned.shape[1:]])
    if bias is not None:
        result = result + bias.reshape([bias.shape[0], 1, *between, bias.shape[1]])
    return result.squeeze(1) if lone else result


def _matmul(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Each row's own product of [B, *S] and [B, *T]; vmap before PyTorch 2.13 needs known sizes."""
    lone = left.ndim == 2, right.ndim == 2
    left = left.unsqueeze(1) if lone[0] else left
    right = right.unsqueeze(2) if lone[1] else right
    while left.ndim != right.ndim:
        if left.ndim < right.ndim:
            left = left.unsqueeze(1)
        else:
            right = right.unsqueeze(1)
    result = left @ right
    result = result.squeeze(-1) if lone[1] else result
    return result.squeeze(-2 + lone[1]) if lone[0] else result


_BY_ROW: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.index_select.default: _index_select,
    torch.ops.aten.linear.default: _linear,
}
if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 13):
    _BY_ROW[torch.ops.aten.matmul.default] = _matmul
