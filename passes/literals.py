"""Make an operation agree with operands that have grown: its literals, then its other operands.

A length that is written as a number is changed only where it *is* the axis. For reshapes that is
read off the factors (:mod:`graphprog.passes.reshaping`). For anything else the operation itself
decides: every change of a literal or of another operand's length is tried on fake values, and the
smallest one under which the operation runs is taken. Two smallest ones are a refusal.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import sympy
import torch
from torch import fx
from torch.utils._sympy.functions import FloorDiv

from graphprog.passes.doubts import counted, refuse_doubt
from graphprog.passes.edges import leaves_of
from graphprog.passes.normalise import schema_name
from graphprog.passes.refusal import RefusalError
from graphprog.passes.reshaping import Factors, SplitError, length, reshaped, whole
from graphprog.passes.stretch import Size, expression, has_length, same_shape, same_size

if TYPE_CHECKING:
    from graphprog.passes.growth import Growth

Demands = Mapping[int, Any]
"""Dimensions of a value, and the length each must have."""

RESHAPES = {"aten::view", "aten::reshape", "aten::_unsafe_view", "aten::unflatten"}
_MERGES = {"aten::flatten", "aten::repeat", "aten::repeat_interleave"}
_ADDS = {"aten::add", "aten::add_"}
_TO_THE_END = 2**63 - 1
_MOST = 3

Option = tuple[int, int | None, Any]
"""A change to try: leaf, dimension of it or None for the literal itself, new length."""


def agree(growth: Growth, node: fx.Node, wanted: Demands | None) -> Any:
    """Run a node on what it reads now, after making the rest of it agree.

    Args:
        growth: the re-derivation at work.
        node: what to run; its literals and operands may be replaced.
        wanted: lengths that the result must have.

    Returns:
        The value of the node.

    Raises:
        RefusalError: it cannot follow.
    """
    name = schema_name(node)
    if not growth.cut.stretch.symbolic:
        if name in RESHAPES:
            _agree_reshape(growth, node, wanted)
        elif name == "aten::expand":
            _agree_expand(growth, node, wanted)
        elif name == "aten::slice":
            _agree_slice(growth, node, wanted)
        elif name == "aten::index":
            _agree_index(growth, node)
        elif name in _MERGES:
            _note_merged(growth, node)
    elif name == "aten::index":
        _agree_index(growth, node)
    value = _run(growth, node, wanted)
    old = growth.old_value(node)
    if isinstance(value, list | tuple) and len(value) != len(old):
        raise RefusalError(node, f"it returns {len(value)} values where {len(old)} are read")
    if name in RESHAPES and _is_cut(value) and not _is_cut(old):
        raise RefusalError(node, "the longer axis cannot be cut like this")
    refuse_doubt(growth, node, concerned=True)
    return value


def _run(growth: Growth, node: fx.Node, wanted: Demands | None) -> Any:
    """Run a node, if need be with other literals or operands."""
    try:
        value = growth.kernels.run(node)
    except Exception as error:
        return _search(growth, node, wanted, str(error))
    if wanted and not _has(value, wanted):
        return _search(growth, node, wanted, "its length is not computed from what it reads")
    return value


def _is_cut(value: torch.Tensor) -> bool:
    """Whether a length is a quotient that may have a rest."""
    return any(expression(size).has(FloorDiv) for size in value.shape)


def _has(value: Any, wanted: Demands) -> bool:
    return isinstance(value, torch.Tensor) and all(
        same_size(value.shape[dim], size) for dim, size in wanted.items()
    )


def _agree_reshape(growth: Growth, node: fx.Node, wanted: Demands | None) -> None:
    """Set the literals of a reshape to the lengths that follow from its input."""
    if wanted:
        _demand_reshaped(growth, node, wanted)
    source = node.args[0]
    assert isinstance(source, fx.Node)
    old = growth.old_value(node)
    try:
        parts = reshaped(_parts(growth, source), list(old.shape))
    except SplitError as error:
        raise RefusalError(node, f"the axis cannot be followed, {error}") from error
    first = 1 if schema_name(node) != "aten::unflatten" else 2
    start = 0 if first == 1 else int(node.args[1]) % old.ndim  # type: ignore[arg-type]
    sizes = node.args[first]
    assert isinstance(sizes, list | tuple)
    for slot, leaf in enumerate(sizes, first):
        dim = start + slot - first
        before, after = expression(old.shape[dim]), length(parts[dim])
        if before == after or leaf == -1:
            continue
        if isinstance(leaf, int):
            growth.put(node, slot, int(after))
        else:  # a varying size times the length, which it was multiplied with as a number
            ratio = sympy.cancel(after / before)
            less = growth.copy_call(operator.floordiv, (leaf, int(ratio.q)), leaf)
            growth.put(node, slot, growth.copy_call(operator.mul, (less, int(ratio.p)), leaf))
    _note(growth, node, parts)


def _note_merged(growth: Growth, node: fx.Node) -> None:
    """Remember what the dimensions of a merge without literals are made of."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    parts = _parts(growth, source)
    if schema_name(node) == "aten::flatten":
        with contextlib.suppress(SplitError):
            _note(growth, node, reshaped(parts, list(growth.old_value(node).shape)))
    elif schema_name(node) == "aten::repeat":
        counts: Any = node.args[1]
        times = [whole(count, count) for count in counts]
        parts = [()] * (len(times) - len(parts)) + parts
        _note(growth, node, [(*outer, *inner) for outer, inner in zip(times, parts, strict=True)])
    elif len(node.args) == 3 and not isinstance(node.args[1], fx.Node):
        count: Any = node.args[1]
        dim = int(node.args[2]) % len(parts)  # type: ignore[arg-type]
        parts[dim] = (*parts[dim], *whole(count, count))
        _note(growth, node, parts)


def _note(growth: Growth, node: fx.Node, parts: list[Factors]) -> None:
    for dim, factors in enumerate(parts):
        if len(factors) > 1 and any(factor.moves for factor in factors):
            growth.parts[node, dim] = factors


def _parts(growth: Growth, node: fx.Node) -> list[Factors]:
    """The parts of every dimension of what a node holds now."""
    old, new = growth.old_value(node), node.meta["val"]
    found = []
    for dim, (before, after) in enumerate(zip(old.shape, new.shape, strict=True)):
        known = growth.parts.get((node, dim))
        if known is None and not same_size(before, after):
            known = _inherited(growth, node, before, after)
        found.append(known or whole(before, after))
    return found


def _inherited(growth: Growth, node: fx.Node, before: Any, after: Any) -> Factors | None:
    """The parts of a merged dimension, from the operand that it came from unchanged."""
    seen: set[fx.Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        for (owner, _), factors in growth.parts.items():
            if owner is current and length(factors) == expression(after):
                return factors
        fresh = [
            part
            for part in current.all_input_nodes
            if part not in seen
            and part in growth.before
            and has_length(growth.before[part], before)
            and has_length(part.meta["val"], after)
        ]
        seen.update(fresh)
        stack += fresh
    return None


def _demand_reshaped(growth: Growth, node: fx.Node, wanted: Demands) -> None:
    """Ask the input of a reshape for the dimension that the wanted one is made of."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    shape, target = source.meta["val"].shape, list(growth.old_value(node).shape)
    grown = {expression(size) for size in wanted.values()}
    for dim, size in enumerate(shape):
        for new in wanted.values():
            if not same_size(size, growth.cut.stretch.size):
                continue
            parts = [whole(one, new if at == dim else one) for at, one in enumerate(shape)]
            try:
                result = [length(factors) for factors in reshaped(parts, target)]
            except SplitError:
                continue
            if all(result[at] == expression(one) for at, one in wanted.items()) and grown:
                growth.put(node, 0, growth.demand(source, {dim: new}, additive=False))
                return


def _agree_expand(growth: Growth, node: fx.Node, wanted: Demands | None) -> None:
    """Let an expanded dimension keep the length of its operand, or take the wanted one."""
    source, sizes = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(sizes, list | tuple)
    value, old = source.meta["val"], growth.old_value(source)
    for position, size in enumerate(sizes):
        dim = position - (len(sizes) - value.ndim)
        own = dim >= 0 and not same_size(old.shape[dim], 1)
        if own and isinstance(size, int) and not same_size(old.shape[dim], value.shape[dim]):
            growth.put(node, 1 + position, -1)
        elif wanted and position in wanted and isinstance(size, int):
            if own:
                grown = growth.demand(source, {dim: wanted[position]}, additive=False)
                growth.put(node, 0, grown)
                growth.put(node, 1 + position, -1)
            else:
                growth.put(node, 1 + position, wanted[position])


def _agree_slice(growth: Growth, node: fx.Node, wanted: Demands | None) -> None:
    """Let a slice that went to the end go to the new end; give a wanted one more of its source."""
    source, dim, _, end = (
        (*node.args, 0, 0, _TO_THE_END)[:4] if len(node.args) < 4 else node.args[:4]
    )
    assert isinstance(source, fx.Node)
    assert isinstance(dim, int)
    old, value = growth.old_value(source), source.meta["val"]
    dim %= old.ndim
    size = old.shape[dim]
    if not isinstance(end, int) or not isinstance(size, int):
        return
    if wanted and dim in wanted:
        more = int(wanted[dim]) - int(growth.old_value(node).shape[dim])
        if end < size and same_size(size, value.shape[dim]):
            if end + more > size:
                raise RefusalError(
                    source, f"it has no entries beyond {size} of the {end + more} needed"
                )
            growth.put(node, 3, end + more)
            return
        growth.put(node, 0, growth.demand(source, {dim: size + more}, additive=False))
    if end >= size and len(node.args) > 3:
        growth.put(node, 3, _TO_THE_END)


def _agree_index(growth: Growth, node: fx.Node) -> None:
    """Give what is read at positions along the axis as many entries as there are positions."""
    source, positions = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(positions, list | tuple)
    sizes, added = source.meta["val"].shape, growth.cut.stretch.added
    wanted = {
        dim: sizes[dim] + added
        for dim, position in enumerate(positions)
        if isinstance(position, fx.Node)
        and not same_shape(growth.old_value(position), position.meta["val"])
        and _may_be_axis(growth, sizes[dim])
        and (not growth.cut.stretch.symbolic or counted(position))
    }
    if wanted and source not in growth.reach:
        growth.put(node, 0, growth.demand(source, wanted, additive=False))
    if not growth.cut.stretch.symbolic:
        _agree_positions(growth, node)


def _agree_positions(growth: Growth, node: fx.Node) -> None:
    """Read as many entries as there are by now, where there were as many positions as entries."""
    source, positions = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(positions, list | tuple)
    old, new = growth.old_value(source).shape, source.meta["val"].shape
    slot = 0
    for dim, position in enumerate(positions):
        slot += 1
        if not isinstance(position, fx.Node) or old[dim] == new[dim] or not counted(position):
            continue
        shape = position.meta["val"].shape
        same = [axis for axis, size in enumerate(shape) if same_size(size, old[dim])]
        if len(same) == 1 and position not in growth.reach:
            grown = growth.demand(position, {same[0]: new[dim]}, additive=False)
            growth.put(node, slot, grown)


def _may_be_axis(growth: Growth, size: Any) -> bool:
    """Whether a length that has not grown may be that of the axis."""
    stretch = growth.cut.stretch
    if not stretch.symbolic:
        return same_size(size, stretch.size)
    # what is only read at positions is not known to have the length of the axis
    if not isinstance(size, torch.SymInt) or not expression(size).is_Symbol:
        return False
    assert isinstance(stretch.size, torch.SymInt)
    like = bool(size.node.hint == stretch.size.node.hint)
    return like and not same_size(size, growth.size)


def _search(growth: Growth, node: fx.Node, wanted: Demands | None, reason: str) -> Any:
    """Find the smallest change of literals and operands under which the node runs."""
    options = list(_options(growth, node, wanted or {}))
    for count in range(1, min(_MOST, len(options)) + 1):
        working = [
            choice
            for choice in itertools.combinations(options, count)
            if _works(node, choice, wanted)
        ]
        if len(working) > 1:
            raise RefusalError(node, "several of its lengths may be the axis, and nothing decides")
        if working:
            _apply(growth, node, working[0])
            if schema_name(node) == "aten::index":
                _agree_index(growth, node)
            return growth.kernels.run(node)
    aligned = _aligned(growth, node, options, wanted or {})
    if len(aligned) > _MOST and _works(node, aligned, wanted):
        _apply(growth, node, aligned)
        return growth.kernels.run(node)
    raise RefusalError(node, f"it cannot follow the longer axis ({reason.splitlines()[0][:160]})")


def _aligned(
    growth: Growth, node: fx.Node, options: list[Option], wanted: Demands
) -> tuple[Option, ...]:
    """The lengths that broadcast to the wanted ones, one for one, however many they are."""
    leaves, ndim = leaves_of(node), getattr(growth.old_value(node), "ndim", 0)
    return tuple(
        (slot, dim, size)
        for slot, dim, size in options
        if dim is not None and dim + ndim - leaves[slot].meta["val"].ndim in wanted
    )


def _options(growth: Growth, node: fx.Node, wanted: Demands) -> Iterator[Option]:
    """Every length in a node that equals the old length of something that grew."""
    shape = getattr(growth.old_value(node), "shape", ())
    varying = [(shape[dim], size) for dim, size in wanted.items() if not isinstance(size, int)]
    lengths: dict[int, int] = {}
    if isinstance(growth.cut.stretch.size, int):
        lengths[growth.cut.stretch.size] = growth.cut.stretch.size + growth.cut.stretch.added
    for part in node.all_input_nodes:
        old, new = growth.old_value(part), part.meta.get("val")
        if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
            sizes: tuple[list[Size], list[Size]] = (list(old.shape), list(new.shape))
            for before, after in zip(*sizes, strict=False):
                if isinstance(before, int) and isinstance(after, int) and before != after:
                    lengths[before] = after
    for slot, leaf in enumerate(leaves_of(node)):
        if isinstance(leaf, int) and not isinstance(leaf, bool) and leaf in lengths:
            yield slot, None, lengths[leaf]
        value = leaf.meta.get("val") if isinstance(leaf, fx.Node) else None
        if isinstance(value, torch.Tensor):
            shorter: list[Size] = list(growth.old_value(leaf).shape)
            now: list[Size] = list(value.shape)
            for dim, size in enumerate(now):
                if isinstance(size, int) and size in lengths and same_size(shorter[dim], size):
                    yield slot, dim, lengths[size]
                yield from ((slot, dim, longer) for one, longer in varying if same_size(one, size))


def _works(node: fx.Node, choice: tuple[Option, ...], wanted: Demands | None) -> bool:
    """Whether the node runs, and has the wanted lengths, with some lengths changed."""
    shapes: dict[int, list[Any]] = {}
    literals: dict[int, int] = {}
    leaves = leaves_of(node)
    for slot, dim, size in choice:
        if dim is None:
            literals[slot] = size
        else:
            shapes.setdefault(slot, list(leaves[slot].meta["val"].shape))[dim] = size
    values = [leaf.meta["val"] if isinstance(leaf, fx.Node) else leaf for leaf in leaves]
    for slot, size in literals.items():
        values[slot] = size
    for slot, shape in shapes.items():
        values[slot] = values[slot].new_empty(shape)
    tree = torch.utils._pytree.tree_structure((node.args, node.kwargs))
    args, kwargs = torch.utils._pytree.tree_unflatten(values, tree)
    assert callable(node.target)
    try:
        result = node.target(*args, **kwargs)
    except Exception:  # whatever it is, this choice is not the answer
        return False
    return not wanted or _has(result, wanted)


def _apply(growth: Growth, node: fx.Node, choice: tuple[Option, ...]) -> None:
    """Put the changes that work into the node."""
    demands: dict[int, dict[int, Any]] = {}
    for slot, dim, size in choice:
        if dim is None:
            growth.put(node, slot, size)
        else:
            demands.setdefault(slot, {})[dim] = size
    additive = schema_name(node) in _ADDS
    for slot, wanted in demands.items():
        growth.put(node, slot, growth.demand(leaves_of(node)[slot], wanted, additive))
