"""Rules by which bounds of entries are found, operation by operation."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from graphprog.ir.dependence.batch_rows import batch_of
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import CASTS, bound, schema_name
from graphprog.ir.sizes import SLICE_END, expression
from graphprog.passes.selection.axis_rules import shape_of

Region = tuple[tuple[int, int, float], ...]
"""Axis, start and end (which may be infinite) of the entries that are asked for, by axis."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Bounds of entries, and whether they may differ between rows of a batch or be random.

    Attributes:
        low: no entry is smaller.
        high: no entry is larger.
        varies: whether they are not proved to be the same in every row.
    """

    low: float = -math.inf
    high: float = math.inf
    varies: bool = True

    def __or__(self, other: Range) -> Range:
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Range(low, high, self.varies or other.varies)

    def bounded(self, low: float, high: float) -> Range:
        """Return other bounds; a single value is the same in every row."""
        if math.isnan(low) or math.isnan(high):
            low, high = -math.inf, math.inf
        return Range(low, high, self.varies and low != high)


def constant(value: float) -> Range:
    """Return the range of one number."""
    return Range(float(value), float(value), False)


Ask = Callable[..., Range]
Rule = Callable[[fx.Node, Region, Ask], "Range | None"]
RULES: dict[str, Rule] = {}
FILLED = {
    f"aten::{prefix}{name}{suffix}"
    for name in ("zeros", "ones", "full")
    for prefix, suffix in (("", ""), ("new_", ""), ("", "_like"))
} | {"aten::scalar_tensor"}
SHAPED = {f"aten::{name}" for name in ("expand", "view", "reshape", "_unsafe_view", "slice")}
_KEPT = CASTS | {
    f"aten::{name}"
    for name in (
        *("expand", "view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "permute"),
        *("transpose", "alias", "lift_fresh_copy", "select", "flatten"),
    )
}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update({f"aten::{name}": rule for name in names})
        return rule

    return register


def _is_bool(node: Any) -> bool:
    return isinstance(node, fx.Node) and fake_tensor(node).dtype == torch.bool


@_rule(*(name.removeprefix("aten::") for name in sorted(_KEPT)))
def _kept(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    """Entries of the operand; a cast to bool says whether they are zero."""
    found = ask(node.args[0])
    if not _is_bool(node) or _is_bool(node.args[0]):
        return _cast(found, fake_tensor(node.args[0]).dtype, fake_tensor(node).dtype)
    never = found.low == found.high == 0
    always = found.low > 0 or found.high < 0
    return found.bounded(float(always), float(not never))


def _cast(found: Range, old: torch.dtype, new: torch.dtype) -> Range:
    """Round bounds as entries are rounded, which keeps their order; whole numbers may wrap."""
    if old in (new, torch.bool):
        return found
    if new.is_floating_point:
        low, high = torch.tensor([found.low, found.high], dtype=torch.float64).to(new).tolist()
        return found.bounded(low, high)
    if new.is_complex or old.is_complex:
        return found.bounded(-math.inf, math.inf)
    limits = torch.iinfo(new)
    if limits.min <= found.low and found.high <= limits.max:
        return found.bounded(math.trunc(found.low), math.trunc(found.high))
    return found.bounded(-math.inf, math.inf)


@_rule(*(name.removeprefix("aten::") for name in sorted(FILLED)))
def _filled(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    name = schema_name(node)
    given = bound(node)
    value = given.get("fill_value", given.get("s", 0 if "zeros" in name else 1))
    return ask(value)


@_rule("arange")
def _counted(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    given = bound(node)
    start, step = given.get("start", 0), given.get("step", 1)
    varies = any(ask(one).varies for one in node.all_input_nodes)
    if not isinstance(start, int) or step not in (1, None):
        return Range(varies=varies)
    first, end = (region[0][1], region[0][2]) if region else (0, math.inf)
    return Range(varies=varies).bounded(start + first, start + end - 1)


@_rule("slice")
def _sliced(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    """Entries of the operand, from the start of the slice."""
    given = bound(node)
    operand, axis = given["self"], given["dim"] % len(shape_of(node))
    start = given["start"] or 0
    if not isinstance(start, int) or start < 0 or given["step"] not in (1, None):
        return ask(operand, tuple(one for one in region if one[0] != axis))
    own = {one[0]: one for one in region}
    _, first, end = own.get(axis, (axis, 0, math.inf))
    if isinstance(given["end"], int) and 0 <= given["end"] < SLICE_END:
        end = min(end, max(0, given["end"] - start))
    own[axis] = (axis, first + start, end + start)
    if own[axis][1:] == (0, math.inf):
        del own[axis]
    return ask(operand, tuple(sorted(own.values())))


@_rule("cat")
def _joined(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    given = bound(node)
    axis = given["dim"] % len(shape_of(node))
    own = {one[0]: one for one in region}
    _, first, end = own.pop(axis, (axis, 0, math.inf))
    rest = tuple(own.values())
    found, offset, known = None, 0, True
    for part in given["tensors"]:
        size = shape_of(part)[axis]
        stop = offset + size if known and isinstance(size, int) else math.inf
        if first < stop and end > offset:
            start = max(0, first - offset)
            place = (axis, start, min(end, stop) - offset)
            whole = place[1:] in ((0, math.inf), (0, size))
            one = ask(part, tuple(sorted(rest if whole else (*rest, place))))
            found = one if found is None else found | one
        if stop < math.inf:
            offset += size
        elif known and end > offset:  # where later parts begin is not known
            known, first, end, offset = False, 0, math.inf, 0
        elif known:
            break
    return found


@_rule("constant_pad_nd", "pad")
def _padded(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    given = bound(node)
    pad, value = list(given["pad"]), given.get("value") or 0
    if given.get("mode", "constant") != "constant" or not all(isinstance(n, int) for n in pad):
        return None
    rank, own = len(shape_of(node)), {one[0]: one for one in region}
    outside = False
    for number in range(len(pad) // 2):
        axis, (left, right) = rank - 1 - number, pad[2 * number : 2 * number + 2]
        _, first, end = own.pop(axis, (axis, 0, math.inf))
        if min(left, right) < 0:
            return None
        if end <= left:
            return ask(value)
        outside |= first < left or right > 0
        if (start := max(0, first - left)) or end < math.inf:
            own[axis] = (axis, start, end - left)
    inside = ask(given.get("self", given.get("input")), tuple(sorted(own.values())))
    return inside | ask(value) if outside else inside


@_rule("index")
def _indexed(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    """Entries of a table, at numbers that are bounded themselves."""
    given = bound(node)
    table, places = given["self"], list(given["indices"])
    if any(one is None or _is_bool(one) for one in places):
        return None
    own, varies, rank = [], False, len(shape_of(node))
    batch = batch_of(node.graph)
    rows = batch is not None and expression(shape_of(table)[0]) in batch.symbols
    for axis, one in enumerate(places):
        shape = shape_of(one)
        ends = tuple(
            (dim - rank + len(shape), start, end)
            for dim, start, end in region
            if dim - rank + len(shape) >= 0 and expression(shape[dim - rank + len(shape)]) != 1
        )
        number = ask(one, ends)
        varies |= number.varies and not (rows and axis == 0)  # of rows that are the same
        if number.low >= 0 and (number.low or number.high < math.inf):
            own.append((axis, int(number.low), number.high + 1))
    found = ask(table, tuple(own))
    return dataclasses.replace(found, varies=found.varies or varies).bounded(found.low, found.high)


@_rule("cumsum")
def _summed(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    """Sums up to each entry: nothing after the last one that is asked for is read."""
    axis = bound(node)["dim"] % len(shape_of(node))
    own = {one[0]: one for one in region}
    _, _, end = own.pop(axis, (axis, 0, math.inf))
    if end < math.inf:
        own[axis] = (axis, 0, end)
    return dataclasses.replace(
        ask(node.args[0], tuple(sorted(own.values()))), low=-math.inf, high=math.inf
    )


def _compared(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    one, other = (ask(part) for part in node.args[:2])
    name = schema_name(node).removeprefix("aten::")
    if name in ("gt", "ge"):
        one, other, name = other, one, {"gt": "lt", "ge": "le"}[name]
    less = operator.lt if name == "lt" else operator.le
    both = one | other
    if name in ("eq", "ne"):
        apart = one.high < other.low or other.high < one.low
        alike = one.low == one.high == other.low == other.high
        low, high = (alike, not apart) if name == "eq" else (apart, not alike)
        return both.bounded(float(low), float(high))
    return both.bounded(float(less(one.high, other.low)), float(less(one.low, other.high)))


_rule("lt", "le", "gt", "ge", "eq", "ne")(_compared)


@_rule("bitwise_and", "logical_and", "__and__")
def _both(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    if not all(map(_is_bool, node.args[:2])):
        return None
    one, other = (ask(part) for part in node.args[:2])
    return (one | other).bounded(min(one.low, other.low), min(one.high, other.high))


@_rule("bitwise_or", "logical_or", "__or__")
def _either(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    if not all(map(_is_bool, node.args[:2])):
        return None
    one, other = (ask(part) for part in node.args[:2])
    return (one | other).bounded(max(one.low, other.low), max(one.high, other.high))


@_rule("logical_not", "bitwise_not")
def _not(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    found = ask(node.args[0])
    return found.bounded(1 - found.high, 1 - found.low) if _is_bool(node.args[0]) else None


@_rule("where", "masked_fill")
def _chosen(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    """One of two values, where it is known which; else either."""
    if schema_name(node) == "aten::where":
        if len(node.args) != 3:
            return None
        condition, yes, no = node.args
    else:
        no, condition, yes = node.args[:3]
    chosen = ask(condition)
    if chosen.low == 1:
        return ask(yes)
    if chosen.high == 0:
        return ask(no)
    found = ask(yes) | ask(no)
    return dataclasses.replace(found, varies=found.varies or chosen.varies).bounded(
        found.low, found.high
    )


@_rule("tril", "triu")
def _triangle(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    """Entries on one side of a diagonal; all others are zero."""
    own, rank = {axis: (start, end) for axis, start, end in region}, len(shape_of(node))
    first, last = own.get(rank - 2, (0, math.inf)), own.get(rank - 1, (0, math.inf))
    nearest, farthest = last[0] - (first[1] - 1), last[1] - 1 - first[0]
    diagonal = bound(node).get("diagonal", 0)
    if not isinstance(diagonal, int):
        return None
    upper = schema_name(node) == "aten::triu"
    if nearest >= diagonal if upper else farthest <= diagonal:
        return ask(node.args[0], region)
    if farthest < diagonal if upper else nearest > diagonal:
        return constant(0)
    return ask(node.args[0], region) | constant(0)


@_rule("neg")
def _negative(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    found = ask(node.args[0])
    signed = fake_tensor(node).is_floating_point()
    return found.bounded(-found.high, -found.low) if signed else None


@_rule("add", "sub", "mul", "rsub")
def _arithmetic(node: fx.Node, region: Region, ask: Ask) -> Range | None:
    """Sums and products, exact for whole numbers; of floats only with 0 and infinity."""
    one, other = (ask(part) for part in node.args[:2])
    name = schema_name(node).removeprefix("aten::")
    if name == "rsub":
        one, other, name = other, one, "sub"
    both = one | other
    if bound(node).get("alpha", 1) != 1:
        return Range(varies=both.varies)
    pairs = [(a, b) for a in (one.low, one.high) for b in (other.low, other.high)]
    found = [{"add": a + b, "sub": a - b, "mul": a * b}[name] for a, b in pairs]
    if any(map(math.isnan, found)):
        return Range(varies=both.varies)
    return both.bounded(min(found), max(found))
