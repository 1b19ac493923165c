"""How a constant that was added to a value moves through the affine operations after it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import CASTS, RESHAPES, bound, schema_name
from graphprog.ir.sizes import expression, is_symbolic, same_shape, same_size

CONVOLUTIONS = frozenset(f"aten::conv{rank}d" for rank in (1, 2, 3))
_LINEAR = frozenset(
    f"aten::{name}"
    for name in (
        *("permute", "transpose", "unsqueeze", "squeeze", "select", "slice", "flatten", "pad"),
        *("movedim", "mean", "sum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "alias", "neg"),
        *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "roll", "flip", "constant_pad_nd"),
    )
) | (RESHAPES - {"aten::unflatten"})
"""Operations that are linear in their first argument, for any others."""

Values = Callable[[Any], "torch.Tensor | None"]
"""From an argument to the constant that it is; None if it varies."""


class Stopped(Exception):  # noqa: N818 (a reason, not an error)
    """Why a constant moves no further."""


@dataclasses.dataclass(frozen=True)
class Shift:
    """What a value lacks until a constant is added to it.

    Attributes:
        node: computes the value without the constant.
        value: the constant [1, ...] in float64; axes of one entry are broadcast.
    """

    node: fx.Node
    value: torch.Tensor

    @property
    def cost(self) -> int:
        """Entries per row that an addition here would compute."""
        sizes = [size for size in fake_tensor(self.node).shape[1:] if not is_symbolic(size)]
        return math.prod(map(int, sizes))

    def whole(self) -> torch.Tensor:
        """Return the constant with an entry for each of a row.

        Raises:
            Stopped: the sizes of a row vary.
        """
        sizes = list(fake_tensor(self.node).shape[1:])
        if any(map(is_symbolic, sizes)):
            raise Stopped("sizes vary, and the constant would have an entry for each position")
        return self.value.expand(1, *map(int, sizes))


def first_shift(add: fx.Node, value: fx.Node, constant: torch.Tensor) -> Shift:
    """Return the shift of a value to which a constant is added.

    Raises:
        Stopped: it is added to fewer entries, or differs by row.
    """
    before = fake_tensor(value)
    if not same_shape(before, fake_tensor(add)) or before.ndim < 2:
        raise Stopped("the sum has another shape than the value")
    if before.dtype != fake_tensor(add).dtype or not before.is_floating_point():
        raise Stopped("the sum has another dtype than the value")
    found = constant.double().reshape((1,) * (before.ndim - constant.ndim) + constant.shape)
    if found.shape[0] != 1:
        raise Stopped("the constant differs by row of the batch")
    return Shift(value, found)


def moved(shift: Shift, user: fx.Node, values: Values) -> Shift:
    """Return the shift of the operation that reads a value.

    Args:
        shift: of the value.
        user: the operation; nothing else reads the value.
        values: finds constants.

    Raises:
        Stopped: it is not affine, or sizes vary.
    """
    name = schema_name(user)
    before, after = fake_tensor(shift.node), user.meta.get("val")
    if not isinstance(after, torch.Tensor) or after.dtype != before.dtype:
        raise Stopped(f"{name.removeprefix('aten::') or user.name} reads it")
    rule = _RULES.get(name)
    if rule is None:
        raise Stopped(f"{name.removeprefix('aten::') or user.name} is not affine")
    found = _reduced(rule(shift, user, values))
    fits = found.ndim == after.ndim > 0 and found.shape[0] == 1
    fits = fits and same_size(after.shape[0], before.shape[0])
    sizes = zip(found.shape[1:], after.shape[1:], strict=True) if fits else ()
    if not fits or any(one != 1 and not same_size(one, size) for one, size in sizes):
        raise Stopped(f"{name.removeprefix('aten::')} moves the batch")
    return Shift(user, found)


def _reduced(value: torch.Tensor) -> torch.Tensor:
    """Leave one entry on every axis along which all are the same number in float32."""
    for axis in range(1, value.ndim):
        first = value.narrow(axis, 0, 1)
        if value.shape[axis] > 1 and torch.equal(value.float(), first.expand_as(value).float()):
            value = first
    return value


def _convolved(shift: Shift, user: fx.Node, values: Values) -> torch.Tensor:
    given = bound(user)
    weight = values(given["weight"])
    if given["input"] is not shift.node or weight is None:
        raise Stopped("its weights vary")
    shape, rank = fake_tensor(shift.node).shape, weight.ndim - 2
    if len(shape) != rank + 2:
        raise Stopped("the convolution has no batch")
    options = [given[name] for name in ("stride", "padding", "dilation", "groups")]
    varies = any(map(is_symbolic, shape[1:]))
    padding = given["padding"]
    if varies and (isinstance(padding, str) and padding != "valid"):
        raise Stopped("sizes vary, and the padding depends on them")
    if varies and not isinstance(padding, str) and any(padding):
        raise Stopped("sizes vary, and the border of a padded convolution differs")
    if varies:  # the same at all positions, so one of them suffices
        if any(size != 1 for size in shift.value.shape[2:]):
            raise Stopped("sizes vary, and the constant differs by position")
        dilation = _all(given["dilation"], rank)
        size = [step * (one - 1) + 1 for step, one in zip(dilation, weight.shape[2:], strict=True)]
        whole = shift.value.expand(1, int(shape[1]), *size)
    else:
        whole = shift.whole()
    return _call(user, (whole, weight.double(), None, *options), {})


def _all(given: Any, rank: int) -> list[int]:
    found = [given] if isinstance(given, int) else list(given)
    return found * rank if len(found) == 1 else found


def _projected(shift: Shift, user: fx.Node, values: Values) -> torch.Tensor:
    weight = values(user.args[1])
    if user.args[0] is not shift.node or weight is None:
        raise Stopped("its weights vary")
    turned = weight.double().t() if schema_name(user) == "aten::linear" else weight.double()
    if turned.ndim != 2:
        raise Stopped("it is a product of stacks of matrices")
    found: torch.Tensor = shift.value.expand(*shift.value.shape[:-1], turned.shape[0]) @ turned
    return found


def _normalized(shift: Shift, user: fx.Node, values: Values) -> torch.Tensor:
    given = bound(user)
    if given["input"] is not shift.node or given["training"]:
        raise Stopped("it counts the batch")
    scale = values(given["running_var"])
    gamma = values(given["weight"]) if given["weight"] is not None else None
    if scale is None or (gamma is None and given["weight"] is not None):
        raise Stopped("its statistics vary")
    factor = (scale.double() + given["eps"]).rsqrt()
    factor = factor if gamma is None else factor * gamma.double()
    found: torch.Tensor = shift.value * factor.reshape(-1, *(1,) * (shift.value.ndim - 2))
    return found


def _added(shift: Shift, user: fx.Node, values: Values) -> torch.Tensor:
    one, other = bound(user)["self"], bound(user)["other"]
    if bound(user)["alpha"] != 1 or one is other:
        raise Stopped("it is added with a factor")
    if not same_shape(fake_tensor(shift.node), fake_tensor(user)):
        raise Stopped("it is added to a value of another shape")
    negated = schema_name(user) == "aten::sub" and other is shift.node
    return -shift.value if negated else shift.value


def _scaled(shift: Shift, user: fx.Node, values: Values) -> torch.Tensor:
    one, other = bound(user)["self"], bound(user)["other"]
    divides = schema_name(user) == "aten::div"
    if one is other or (divides and other is shift.node) or "rounding_mode" in bound(user):
        raise Stopped("it is multiplied by itself, or divides")
    factor = other if one is shift.node else one
    found = torch.tensor(factor) if isinstance(factor, int | float) else values(factor)
    if found is None or not same_shape(fake_tensor(shift.node), fake_tensor(user)):
        raise Stopped("its factor varies")
    return shift.value / found.double() if divides else shift.value * found.double()


def _joined(shift: Shift, user: fx.Node, values: Values) -> torch.Tensor:
    given = bound(user)
    parts, axis = given["tensors"], given["dim"] % fake_tensor(user).ndim
    if list(parts).count(shift.node) != 1 or axis == 0:
        raise Stopped("it is joined along the batch, or with itself")
    zeros = {
        part: Shift(part, torch.zeros((1,) * fake_tensor(user).ndim, dtype=torch.float64)).whole()
        for part in parts
        if part is not shift.node
    }
    wholes = [zeros[part] if part in zeros else shift.whole() for part in parts]
    device = shift.value.device
    return torch.cat([one.to(device) for one in wholes], axis)


def _same(shift: Shift, user: fx.Node, values: Values) -> torch.Tensor:
    return shift.value


def _run(shift: Shift, user: fx.Node, values: Values) -> torch.Tensor:
    """Run the operation itself, with one row."""
    if list(user.all_input_nodes).count(shift.node) != 1 or user.args[0] is not shift.node:
        raise Stopped("it is read several times")
    rows = expression(fake_tensor(shift.node).shape[0])

    def argument(node: fx.Node) -> Any:
        if node is shift.node:
            return shift.whole()
        if is_symbolic(node.meta["val"]) and expression(node.meta["val"]) == rows:
            return 1
        raise Stopped("sizes vary")

    args, kwargs = fx.node.map_arg((user.args, user.kwargs), argument)
    if "pad" in schema_name(user):
        mode = bound(user).get("mode", "constant")
        if mode != "constant":
            raise Stopped("it pads with entries of the value")
        return torch.nn.functional.pad(shift.whole(), bound(user)["pad"])
    return _call(user, args, kwargs)


def _call(user: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    target: Any = user.target
    try:
        with torch.no_grad():
            found: torch.Tensor = target(*args, **kwargs)
    except (RuntimeError, NotImplementedError) as error:
        raise Stopped(f"torch does not run it on one row: {error!s:.80}") from error
    return found


_RULES: dict[str, Callable[[Shift, fx.Node, Values], torch.Tensor]] = {
    **dict.fromkeys(_LINEAR, _run),
    **dict.fromkeys(CASTS, _same),
    **dict.fromkeys(CONVOLUTIONS, _convolved),
    "aten::linear": _projected,
    "aten::matmul": _projected,
    "aten::batch_norm": _normalized,
    "aten::add": _added,
    "aten::sub": _added,
    "aten::mul": _scaled,
    "aten::div": _scaled,
    "aten::cat": _joined,
}
