"""Values split into the entries of a prompt, the same in every row, and those of samples.

The walk begins where a program's entries are concatenated before those of samples, and follows
operations that treat each entry by itself. At causal attention the prompt attends to itself once,
and samples attend to its keys and values as a prefix.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.ir.dependence.batch_rows import batch_of, batch_rows
from graphprog.ir.dependence.classes import draws
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import bound, schema_name, values_of
from graphprog.ir.sizes import SLICE_END, expression, same_size
from graphprog.ir.weights import Weights
from graphprog.passes.selection.axis_rules import RESHAPES, row_arguments, shape_of
from graphprog.passes.selection.push_down import Stop
from graphprog.passes.selection.ranges import Ranges
from graphprog.passes.selection.writer import Writer, is_named
from graphprog.rewriting.toposort import sort

_aten = torch.ops.aten
_ATTENTION = "scaled_dot_product_attention"
_LONGEST = 256
"""Entries of a prompt of which each is looked at."""


@dataclasses.dataclass(frozen=True)
class Split:
    """The two parts of a value.

    Attributes:
        axis: of the entries.
        rows: axis of the batch.
        count: entries of the prompt, which are first.
        head: the value of the prompt's entries, with one row.
        rest: the value of all other entries, with all rows.
        learned: whether the prompt depends on a program.
    """

    axis: int
    rows: int
    count: int
    head: fx.Node
    rest: fx.Node
    learned: bool


class _WholeError(Exception):
    """An operation reads its operands as a whole; says why."""


class Splitting:
    """One walk from the inputs to the outputs, in place.

    Args:
        code: the operations, without dead code, with fake values.
        weights: the tensors.
        opaque: nodes that are computed as they are.
        meta: further metadata of new nodes.
        alike: number of the first entries of inputs that are taken to be the same in every row.

    Attributes:
        crossed: the attention that was split.
        stops: where values are read as a whole, and why.
        after: number of the entries of samples before a prompt, where it has some.
    """

    def __init__(
        self,
        code: fx.Graph,
        weights: Weights,
        opaque: frozenset[fx.Node],
        meta: dict[str, Any],
        alike: int = 0,
    ) -> None:
        self.code = code
        self.writer = Writer(code, meta)
        self.opaque = opaque
        self.batch = batch_of(code)
        self.rows: dict[fx.Node, Any] = dict(batch_rows(code))
        self.ranges = Ranges(code, weights, opaque, alike)
        self.parts: dict[fx.Node, Split] = {}
        self.crossed: list[fx.Node] = []
        self.stops: list[Stop] = []
        self.after = 0
        self.programmed = _programmed(code)
        self._joined: dict[fx.Node, fx.Node] = {}
        self._values: dict[Any, torch.Tensor] = {}

    def run(self) -> None:
        """Split what can be split, and join it where it is read as a whole."""
        attends = [one for one in self.code.nodes if is_named(one, _ATTENTION)]
        masked = any(bound(one)["is_causal"] or bound(one)["attn_mask"] for one in attends)
        if not masked:
            begun = [one for one in self.code.nodes if self._is_prompt(one)]
            self.stops = [
                Stop(one, "the prompt attends to samples") for one in attends[:1] if begun
            ]
            return
        for node in list(self.code.nodes):
            if node.op == "output" or node in self.opaque:
                self._join_operands(node)
            elif node.op == "call_function":
                self._visit(node)
        sort(self.code)
        for node in reversed(list(self.code.nodes)):
            if not node.users and node.op == "call_function" and node not in self.opaque:
                self.code.erase_node(node)

    def _visit(self, node: fx.Node) -> None:
        try:
            if node.target is _aten.cat.default and self._begin(node):
                return
            if not any(one in self.parts for one in node.all_input_nodes):
                return
            if not self._read_part(node):
                attends = is_named(node, _ATTENTION)
                self.parts[node] = self._attend(node) if attends else self._each(node)
        except _WholeError as reason:
            if any(one in self.parts and self.parts[one].learned for one in node.all_input_nodes):
                self.stops.append(Stop(node, str(reason)))
            self._join_operands(node)

    def _join_operands(self, node: fx.Node) -> None:
        for operand in node.all_input_nodes:
            if operand in self.parts:
                node.replace_input_with(operand, self._whole(operand))

    def _whole(self, node: fx.Node) -> fx.Node:
        """Return a value with all its entries."""
        if node not in self.parts:
            return node
        if node not in self._joined:
            part, call = self.parts[node], self.writer.call
            sizes: list[Any] = [-1] * fake_tensor(part.head).ndim
            sizes[part.rows] = self.writer.once(_aten.sym_size.int, part.rest, part.rows)
            wide = call(_aten.expand.default, part.head, sizes)
            joined = call(_aten.cat.default, [wide, part.rest], part.axis)
            self._joined[node] = joined
            self.ranges.same[joined], self.rows[joined] = node, self.rows[node]
        return self._joined[node]

    def _one(self, node: fx.Node, cut: fx.Node | None = None) -> fx.Node:
        """Return one row of a value that is the same in all rows, or of a cut of it."""
        cut, place = cut or node, self.rows.get(node)
        if self.batch is None or not self.batch.among(fake_tensor(cut).shape):
            return cut
        if not isinstance(place, int):
            raise _WholeError("rows of the batch may mix in an operand")
        if cut.target is _aten.expand.default and not self._has_rows(cut.args[0]):
            sizes = list(cut.args[1])  # type: ignore[arg-type]
            sizes[place] = 1
            return self.writer.once(_aten.expand.default, cut.args[0], sizes)
        return self.writer.once(_aten.slice.Tensor, cut, place, 0, 1)

    def _has_rows(self, node: Any) -> bool:
        assert self.batch is not None
        return self.batch.among(fake_tensor(node).shape)

    def _cut(self, node: fx.Node, axis: int, start: int, end: int) -> fx.Node:
        return self.writer.once(_aten.slice.Tensor, node, axis, start, end)

    def _first(self, node: fx.Node, axis: int, count: int) -> fx.Node:
        """Return the first entries of a value, if possible made from no others.

        Positions up to a number of which only the length is known are constants then.
        """
        if isinstance(shape_of(node)[axis], int) or node.op != "call_function":
            return self._cut(node, axis, 0, count)
        given = bound(node) if isinstance(node.target, torch._ops.OpOverload) else {}
        if is_named(node, "arange") and not given.get("start") and given.get("step", 1) == 1:
            return self.writer.once(_aten.arange.default, count, **node.kwargs)
        last = len(shape_of(node)) - 1
        if is_named(node, "matmul") and axis == last and len(shape_of(given["other"])) > 1:
            found = [(given["other"], len(shape_of(given["other"])) - 1)]
        else:
            found = row_arguments(node, axis) or []
        operands = {
            one: self._first(one, own, count)
            for one, own in found
            if expression(shape_of(one)[own]) != 1
        }
        if not operands:
            return self._cut(node, axis, 0, count)
        return self._copy(node, operands, {axis: (count, count)})

    def _is_prompt(self, node: fx.Node) -> bool:
        """Whether entries of a program are concatenated with others, which differ between rows."""
        if node.target is not _aten.cat.default or not self.ranges.varies(node):
            return False
        parts = bound(node)["tensors"]
        return any(one in self.programmed and not self.ranges.varies(one) for one in parts)

    def _begin(self, node: fx.Node) -> bool:
        """Split a value into entries of the program before others, and these."""
        given = bound(node)
        axis, tensors = given["dim"] % len(shape_of(node)), list(given["tensors"])
        heads: list[fx.Node] = []
        count, rows, follows, learned = 0, self.rows.get(node), None, False
        while tensors and follows is None:
            size, part = shape_of(tensors[0])[axis], self.parts.get(tensors[0])
            if part is not None and part.axis == axis and part.rows == rows:
                heads, count, follows = [*heads, part.head], count + part.count, part.rest
                learned |= part.learned
            elif part is not None or not isinstance(size, int) or self.ranges.varies(tensors[0]):
                break
            else:
                heads, count = [*heads, self._one(tensors[0])], count + size
                learned |= tensors[0] in self.programmed
            tensors = tensors[1:]
        if not count:
            self._find_start(tensors, axis)
        if (
            not count
            or not isinstance(rows, int)
            or rows == axis
            or not fake_tensor(node).is_floating_point()
        ):
            return False
        rests = [*([] if follows is None else [follows]), *map(self._whole, tensors)]
        if not rests:
            return False
        head, rest = (
            some[0] if len(some) == 1 else self.writer.call(_aten.cat.default, some, axis)
            for some in (heads, rests)
        )
        self.parts[node] = Split(axis, rows, count, head, rest, learned)
        return True

    def _find_start(self, tensors: Sequence[fx.Node], axis: int) -> None:
        """Remember how many entries of samples are before a prompt."""
        prompt = tensors[1:-1]
        if not any(one in self.programmed for one in prompt) or any(
            map(self.ranges.varies, prompt)
        ):
            return
        size = shape_of(tensors[0])[axis]
        if isinstance(size, int) and fake_tensor(tensors[0]).is_floating_point():
            self.after = max(self.after, size)

    def _read_part(self, node: fx.Node) -> bool:
        """Read only entries of samples, where an operation reads no others."""
        operand = node.all_input_nodes[0]
        part = self.parts.get(operand)
        if part is None or node.args[0] is not operand:
            return False
        name, given = schema_name(node), bound(node)
        axis = given.get("dim", part.axis)
        if name.startswith("aten::new_"):
            node.replace_input_with(operand, part.rest)
        elif name == "aten::sym_size":
            size = self.writer.once(_aten.sym_size.int, part.rest, axis)
            own = axis % fake_tensor(part.rest).ndim == part.axis
            if own:
                node.target, node.args = operator.add, (size, part.count)
            else:
                node.args = (part.rest, axis)
        elif name in ("aten::slice", "aten::select"):
            start = given["start" if name == "aten::slice" else "index"]
            inside = isinstance(start, int) and (start >= part.count or start == -1)
            ends = name == "aten::select" or given["end"] in (None, SLICE_END)
            if axis % fake_tensor(part.rest).ndim != part.axis or not inside or not ends:
                return False
            first = start if start < 0 else start - part.count
            node.args = (part.rest, node.args[1], first, *node.args[3:])
        else:
            return False
        return True

    def _each(self, node: fx.Node) -> Split:
        """Split an operation that computes each entry by itself."""
        splits = {one: self.parts[one] for one in node.all_input_nodes if one in self.parts}
        axis, listed = self._axis(node, splits)
        (count, *others) = {part.count for part in splits.values()}
        rows = self.rows.get(node)
        if others:
            raise _WholeError("prompts of different lengths meet")
        if not isinstance(rows, int) or rows == axis:
            raise _WholeError("rows of the batch may mix")
        heads, rests = {}, {}
        for operand in node.all_input_nodes:
            if operand in splits:
                heads[operand], rests[operand] = splits[operand].head, splits[operand].rest
            elif not isinstance(operand.meta.get("val"), torch.Tensor):
                continue
            elif operand in listed:
                own = listed[operand]
                if self.ranges.of(operand, ((own, 0, count),)).varies:
                    raise _WholeError(f"{operand.name} differs between rows at the prompt")
                heads[operand] = self._one(operand, self._first(operand, own, count))
                rests[operand] = self._cut(operand, own, count, SLICE_END)
            elif self.ranges.varies(operand):
                raise _WholeError(f"{operand.name} differs between rows")
            else:
                heads[operand] = self._one(operand)
        length = self._rest_length(splits)
        head = self._copy(node, heads, {rows: (1, 1), axis: (count, count)})
        rest = self._copy(node, rests, {axis: length})
        return Split(axis, rows, count, head, rest, any(one.learned for one in splits.values()))

    def _axis(
        self, node: fx.Node, splits: Mapping[fx.Node, Split]
    ) -> tuple[int, dict[fx.Node, int]]:
        """Return the axis of a result along which operands are split, and that of operands."""
        for axis in range(len(shape_of(node))):
            listed = dict(row_arguments(node, axis) or [])
            if all(listed.get(one) == part.axis for one, part in splits.items()):
                return axis, {
                    one: own for one, own in listed.items() if expression(shape_of(one)[own]) != 1
                }
        raise _WholeError("it needs all entries of its operands")

    def _rest_length(self, splits: Mapping[fx.Node, Split]) -> tuple[Any, Any]:
        """Return the number of entries of samples, as an argument and as a size."""
        part = next(iter(splits.values()))
        size = shape_of(part.rest)[part.axis]
        if isinstance(size, int):
            return size, size
        tensor = part.rest
        if not isinstance(tensor.meta["val"], torch.Tensor):
            tensor = self.writer.once(operator.getitem, tensor, 0)
        return self.writer.once(_aten.sym_size.int, tensor, part.axis), size

    def _copy(
        self,
        node: fx.Node,
        operands: Mapping[fx.Node, fx.Node],
        sizes: Mapping[int, tuple[Any, Any]],
    ) -> fx.Node:
        """Write an operation again for other operands.

        Args:
            node: the operation.
            operands: what it reads instead.
            sizes: of axes of the result, as arguments and as sizes of the fake value.
        """
        target: Any = node.target
        args: Any
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda one: operands.get(one, one))
        if target in RESHAPES or target is _aten.expand.default:
            shape = list(args[1])
            known = shape_of(node)
            for axis in range(len(shape)):
                if isinstance(known[axis], int):
                    shape[axis] = known[axis]
                shape[axis] = sizes.get(axis, shape[axis : axis + 1])[0]
            target = _aten.reshape.default if target in RESHAPES else target
            args = (args[0], shape, *args[2:])
        return self.writer.write(target, args, kwargs, self._resized(node, sizes))

    def _resized(self, node: fx.Node, sizes: Mapping[int, tuple[Any, Any]]) -> Any:
        """Return the fake value of an operation at other sizes of some axes."""

        def resize(value: torch.Tensor) -> torch.Tensor:
            shape = [sizes.get(axis, (size,))[-1] for axis, size in enumerate(value.shape)]
            key = (*map(expression, shape), value.dtype, value.device)
            if key not in self._values:
                self._values[key] = value.new_empty(shape)
            return self._values[key]

        return pytree.tree_map_only(torch.Tensor, resize, node.meta["val"])

    def _attend(self, node: fx.Node) -> Split:
        """Let the prompt attend to itself, and samples to both."""
        given, rank = bound(node), len(shape_of(node))
        query, key, value = (self.parts.get(given[name]) for name in ("query", "key", "value"))
        if query is None or key is None or value is None or key.count != value.count:
            raise _WholeError("keys and values of the prompt are read by all queries")
        if any(part.axis != rank - 2 for part in (query, key, value)) or draws(node):
            raise _WholeError("it needs all entries of its operands")
        rows = self.rows.get(node)
        if not isinstance(rows, int) or any(part.rows != rows for part in (query, key, value)):
            raise _WholeError("rows of the batch may mix")
        mask, causal = given["attn_mask"], given["is_causal"]
        named = {name: given[name] for name in ("scale", "enable_gqa") if given.get(name)}
        call = self.writer.call
        if causal:
            equal = same_size(shape_of(given["query"])[-2], shape_of(given["key"])[-2])
            if not equal or query.count != key.count:
                raise _WholeError("the prompt is not first among its keys")
            own, later = None, self._causal_mask(given["key"], query.count)
        else:
            own, later = self._mask_parts(mask, query.count, key.count)
            causal = own is None
        attend = _aten.scaled_dot_product_attention.default
        own_named = named | ({"is_causal": True} if causal else {})
        head = call(attend, query.head, key.head, value.head, own, **own_named)
        keys, values = self._whole(given["key"]), self._whole(given["value"])
        rest = call(attend, query.rest, keys, values, later, **named)
        self.crossed.append(node)
        learned = any(part.learned for part in (query, key, value))
        return Split(query.axis, rows, query.count, head, rest, learned)

    def _mask_parts(self, mask: Any, queries: int, keys: int) -> tuple[fx.Node | None, fx.Node]:
        """Return the mask among the prompt, and that of samples; prove that it hides samples.

        There is none among the prompt if it is causal by order.
        """
        if not isinstance(mask, fx.Node):
            raise _WholeError("the prompt attends to samples")
        shape = shape_of(mask)
        rank = len(shape)
        if rank < 2 or any(expression(size) == 1 for size in shape[-2:]):
            raise _WholeError("its mask hides no samples from the prompt")
        own, inside = (rank - 2, 0, queries), (rank - 1, 0, keys)
        if not self.ranges.hides(mask, queries, keys):
            raise _WholeError("its mask is not proved to hide samples from the prompt")
        if self.ranges.of(mask, (own, inside)).varies:
            raise _WholeError("its mask differs between rows at the prompt")
        in_order = queries == keys <= _LONGEST and self._is_triangle(mask, queries)
        mask = self._whole(mask)
        if in_order:
            return None, self._cut(mask, rank - 2, queries, SLICE_END)
        among = self._cut(self._cut(mask, rank - 2, 0, queries), rank - 1, 0, keys)
        return self._one(mask, among), self._cut(mask, rank - 2, queries, SLICE_END)

    def _is_triangle(self, mask: fx.Node, count: int) -> bool:
        """Whether each of the first entries sees itself and all before it, and no others."""
        rank, known = len(shape_of(mask)), self.ranges
        whole = float(fake_tensor(mask).dtype == torch.bool)
        for row in range(count):
            own = (rank - 2, row, row + 1)
            seen = known.of(mask, (own, (rank - 1, 0, row + 1)))
            if not seen.low == seen.high == whole:
                return False
            hidden = known.of(mask, (own, (rank - 1, row + 1, count))).high
            if row + 1 < count and not (hidden == 0 if whole else hidden == -math.inf):
                return False
        return True

    def _causal_mask(self, key: fx.Node, count: int) -> fx.Node:
        """Return the mask of samples after a prompt: bool [S, P + S]."""
        part, once = self.parts[key], self.writer.once
        device = fake_tensor(part.rest).device
        size = once(_aten.sym_size.int, part.rest, part.axis)
        every = once(operator.add, size, count)
        numbers = once(_aten.arange.default, every, device=device)
        own = once(_aten.unsqueeze.default, self._cut(numbers, 0, count, SLICE_END), -1)
        return once(_aten.le.Tensor, numbers, own)


def _programmed(code: fx.Graph) -> set[fx.Node]:
    """Return the values that depend on tensors of the program, or on any tensor without one."""
    tensors = code.find_nodes(op="get_attr")
    own = [node for node in tensors if str(node.target).startswith("program.")]
    found = set(own or tensors)
    for node in code.nodes:
        if not found.isdisjoint(values_of(node)):
            found.add(node)
    return found
