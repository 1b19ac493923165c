"""Uses of the numbers of an input: what reads them, followed through views, casts and shifts."""

from __future__ import annotations

import dataclasses
import enum
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from graphprog.analysis.constants import counts_entries, is_constant, number_in
from graphprog.analysis.pointers import pointed
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import CASTS, ancestors, schema_name, values_of

_LARGE = 100
"""Magnitude that leaves no attention: masks are multiplied by it, or filled with it."""


def _named(names: str) -> frozenset[str]:
    return frozenset(f"aten::{name}" for name in names.split())


_VIEWS = CASTS | _named(
    "view reshape _unsafe_view flatten unflatten alias lift_fresh_copy unsqueeze squeeze expand "
    "expand_as repeat tile repeat_interleave slice select narrow unbind split split_with_sizes "
    "chunk transpose permute t movedim flip roll cat stack constant_pad_nd pad tril triu diagonal "
    "slice_scatter select_scatter type_as"
)
"""Operations whose results are numbers of their operands."""
_SELECTS = _named("index index_select gather take_along_dim masked_select")
"""Operations that return numbers of their first operand, which others point to."""
_ARITHMETIC = _named(
    "clamp clamp_min clamp_max minimum maximum remainder floor_divide div neg abs "
    "bitwise_left_shift bitwise_right_shift bitwise_and bitwise_or bitwise_xor"
)
_COUNTS = _named("sum mean cumsum logcumsumexp any all count_nonzero")
_ORDERS = _named("argmax argmin argsort sort topk max min amax amin nonzero")
_COMPARES = _named("eq ne gt ge lt le")
_LOGIC = _named("logical_and logical_or bitwise_and bitwise_or mul")
_NOT = _named("logical_not bitwise_not")
_PRODUCTS = _named("matmul bmm mm baddbmm einsum")
_SCATTERS = _named(
    "scatter scatter_add scatter_reduce index_add index_reduce index_put index_copy bincount"
)


class Kind(enum.Enum):
    """How an operation uses numbers."""

    LOOKUP = "rows of a table"
    GATE = "a factor or a count"
    COMPARED = "compared with a number"
    PRESENT = "a mask whose true entries are seen"
    ABSENT = "a mask whose true entries are hidden"
    ADDED = "added to data"
    UNKNOWN = "anything else"


@dataclasses.dataclass(frozen=True)
class Use:
    """A use of the numbers of an input.

    Attributes:
        kind: how they are used.
        node: the operation.
        number: the number of the input that it is compared with; None if unknown.
        first: the number of the input that is looked up in the first row; None if unknown.
    """

    kind: Kind
    node: fx.Node
    number: float | None = None
    first: float | None = None


@dataclasses.dataclass(frozen=True)
class _State:
    """What became of the numbers on the way to a value.

    Attributes:
        shift: the number that was added; None if more than that was done.
        sign: 1 if larger means larger, or true; -1 if it means the opposite; 0 if unknown.
        product: whether they were multiplied by other integers.
        compared: whether only the result of a comparison is left of them.
    """

    shift: float | None = 0
    sign: int = 1
    product: bool = False
    compared: bool = False

    def before(self, number: float) -> float | None:
        """Return the number of the input that became this number; None if unknown."""
        return None if self.shift is None else number - self.shift

    def computed(self, sign: int = 1) -> _State:
        """Return the state after a computation; ``sign`` is -1 if it reverses the order."""
        return dataclasses.replace(self, shift=None, sign=self.sign * sign)

    def truth(self, sign: int) -> _State:
        """Return the state after a comparison."""
        return dataclasses.replace(self.computed(sign), compared=True)


def uses_of_input(node: fx.Node) -> list[Use]:
    """Return the uses of the numbers of an input, or of another value."""
    return list(_Walk(node).uses())


class _Walk:
    """The values that hold the numbers of an input, and what reads them."""

    def __init__(self, start: fx.Node) -> None:
        self.start = start
        self.states: dict[fx.Node, set[_State]] = {start: {_State()}}
        self._stack = [(start, _State())]

    def uses(self) -> Iterator[Use]:
        """Yield every use, once for each way that leads to it."""
        while self._stack:
            value, state = self._stack.pop()
            for user in value.users:
                if isinstance(user.meta.get("val"), torch.Tensor | list | tuple):
                    yield from self._use(user, value, state)

    def _follow(self, node: fx.Node, state: _State) -> None:
        known = self.states.setdefault(node, set())
        if state not in known:
            known.add(state)
            self._stack.append((node, state))

    def _use(self, user: fx.Node, value: fx.Node, state: _State) -> Iterator[Use]:
        name = schema_name(user)
        if name in CASTS and _is_boolean(user) and not _is_boolean(value):
            yield Use(Kind.COMPARED, user, state.before(0))
            self._follow(user, state.truth(1 if state.shift == 0 else 0))
        elif user.target is operator.getitem or name in _VIEWS:
            self._follow(user, state)
        elif user.op == "output" or value not in values_of(user):
            return
        elif _points(user, value):
            yield from self._pointing(user, value, state)
        elif name in _SELECTS or name == "aten::index_put":
            self._follow(user, state)
        elif name in ("aten::where", "aten::masked_fill"):
            yield from self._chosen(user, value, state)
        elif name in _COMPARES:
            yield from self._compared(user, value, state)
        elif name in _NOT:
            self._follow(user, state.computed(-1))
        elif name in _LOGIC and _is_boolean(user):
            self._follow(user, state.computed())
        elif name not in _ORDERS:
            found = self._computed(user, value, state)
            # how a comparison's result is computed with says nothing about what was compared
            told = (Kind.PRESENT, Kind.ABSENT)
            yield from (one for one in found if not state.compared or one.kind in told)

    def _pointing(self, user: fx.Node, value: fx.Node, state: _State) -> Iterator[Use]:
        """Numbers say what to read, or where to write."""
        name = schema_name(user)
        if _is_boolean(value):
            yield _seen(user, state.sign)
        elif state.compared:
            return
        elif name != "aten::one_hot" and (name in _SCATTERS or not is_constant(user.args[0])):
            yield Use(Kind.UNKNOWN, user)
        elif not state.product:
            yield Use(Kind.LOOKUP, user, first=state.before(0))

    def _chosen(self, user: fx.Node, value: fx.Node, state: _State) -> Iterator[Use]:
        """Numbers are kept in some places, or say in which places something else is."""
        filling = schema_name(user) == "aten::masked_fill"
        condition = user.args[1] if filling else user.args[0]
        if condition is not value:
            self._follow(user, state.computed())
            return
        true, false = (user.args[2], user.args[0]) if filling else user.args[1:3]
        if self._hides(true, false):
            yield _seen(user, -state.sign)
        elif self._hides(false, true):
            yield _seen(user, state.sign)

    def _hides(self, chosen: Any, other: Any) -> bool:
        """Whether a value hides what stands elsewhere: no attention, or zeros for data."""
        number = number_in(chosen)
        data = isinstance(other, fx.Node) and number_in(other) is None and other not in self.states
        return number is not None and (number <= -_LARGE or (number == 0 and data))

    def _compared(self, user: fx.Node, value: fx.Node, state: _State) -> Iterator[Use]:
        first, other = user.args[:2]
        number = number_in(other)
        if first is not value:
            number, other = None, first
        if isinstance(other, fx.Node) and (other in self.states or _numbers_entries(other)):
            yield Use(Kind.UNKNOWN, user)  # which entries belong together, or come first
        if number is None:
            yield Use(Kind.COMPARED, user)
            self._follow(user, state.truth(0))
        else:
            yield Use(Kind.COMPARED, user, state.before(number))
            self._follow(user, state.truth(_direction(schema_name(user), number)))

    def _computed(self, user: fx.Node, value: fx.Node, state: _State) -> Iterator[Use]:
        """Numbers are computed with."""
        name = schema_name(user)
        others = [
            part
            for part in values_of(user)
            if part is not value and isinstance(part.meta.get("val"), torch.Tensor)
        ]
        if name in ("aten::add", "aten::sub", "aten::rsub"):
            yield from self._added(user, value, others, state)
        elif name == "aten::mul":
            yield from self._multiplied(user, value, others, state)
        elif name in _COUNTS:
            yield Use(Kind.GATE, user)
        elif name in _ARITHMETIC and not _are_data(others):
            self._follow(user, state.computed())
        elif name == "aten::scaled_dot_product_attention" and value in user.args[3:4]:
            yield _seen(user, state.sign) if _is_boolean(value) else Use(Kind.ADDED, user)
        elif name in _PRODUCTS and not any(map(is_constant, others)):
            yield Use(Kind.GATE, user)  # a sum over the entries that a mask has
        else:
            yield Use(Kind.UNKNOWN, user)

    def _added(
        self, user: fx.Node, value: fx.Node, others: Sequence[fx.Node], state: _State
    ) -> Iterator[Use]:
        if _are_data(others):
            yield Use(Kind.ADDED, user)
            return
        name = schema_name(user)
        first, second = user.args[:2] if name != "aten::rsub" else reversed(user.args[:2])
        number = number_in(second if first is value else first)
        if name != "aten::add" and first is not value:
            if number == 1 and state.shift == 0:
                yield Use(Kind.GATE, user)  # 1 where a mask is 0
            self._follow(user, state.computed(-1))
        elif number is None or state.shift is None or len(user.args) > 2 or user.kwargs:
            self._follow(user, state.computed())
        else:
            moved = state.shift + (number if name == "aten::add" else -number)
            self._follow(user, dataclasses.replace(state, shift=moved))

    def _multiplied(
        self, user: fx.Node, value: fx.Node, others: Sequence[fx.Node], state: _State
    ) -> Iterator[Use]:
        number = number_in(user.args[1] if user.args[0] is value else user.args[0])
        floating = fake_tensor(user).is_floating_point()
        if number is not None and abs(number) >= _LARGE and floating:
            yield Use(Kind.GATE, user)
            yield _seen(user, state.sign if number > 0 else -state.sign)
        elif number is not None or not others:
            self._follow(user, state.computed(1 if number is None or number > 0 else -1))
        elif all(map(is_constant, others)) and fake_tensor(others[0]).ndim == 0:
            self._follow(user, state.computed(0))
        elif all(map(is_constant, others)):
            yield Use(Kind.UNKNOWN, user)  # such as frequencies, for which these are positions
        elif floating:
            yield Use(Kind.GATE, user)
            yield _seen(user, state.sign)
        elif any(map(self._is_counted, others)):
            yield Use(Kind.GATE, user)  # positions that are counted from a mask, where it is 1
        else:
            self._follow(user, dataclasses.replace(state.computed(), product=True))

    def _is_counted(self, node: fx.Node) -> bool:
        """Whether a value is computed from counts of the numbers."""
        return any(
            schema_name(part) in _COUNTS and self.start in ancestors(part)
            for part in ancestors(node)
        )


def _seen(user: fx.Node, sign: int) -> Use:
    """Return the use as a mask that shows the entries that are true, or hides them (-1)."""
    return Use({1: Kind.PRESENT, -1: Kind.ABSENT}.get(sign, Kind.COMPARED), user)


def _points(user: fx.Node, value: fx.Node) -> bool:
    """Whether a value says where another one is read or written."""
    name = schema_name(user)
    if name in ("aten::one_hot", "aten::bincount"):
        return True
    if name in ("aten::index", "aten::index_put"):
        return value in user.args[1]  # type: ignore[operator]
    if name == "aten::masked_select":
        return user.args[1] is value
    return any(place is value for _, _, place in pointed(user))


def _direction(name: str, number: float) -> int:
    """Return whether a comparison is true for 1 and not for 0, or the opposite; 0 if neither."""
    compare = getattr(operator, name.removeprefix("aten::"))
    return int(compare(1, number)) - int(compare(0, number))


def _numbers_entries(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.ndim > 0 and counts_entries(node)


def _is_boolean(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.bool


def _are_data(nodes: Sequence[fx.Node]) -> bool:
    """Whether any value is floats that depend on inputs or on the model's tensors."""
    return any(
        fake_tensor(node).is_floating_point()
        for node in nodes
        if isinstance(node.meta.get("val"), torch.Tensor) and number_in(node) is None
    )
