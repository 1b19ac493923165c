"""Rules of operations that compute: products, normalization, reductions, windows of images."""

from __future__ import annotations

from typing import Any

from torch import fx

from graphprog.ir.dependence.rule_table import (
    Arguments,
    Rows,
    RuleTable,
    aligned,
    dims_of,
    only,
    rank_of,
)

LAYER_RULES = RuleTable()


def pointwise(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    """Operations that compute every entry by itself."""
    value: Any = node.meta["val"]
    tensors = [part for part in node.all_input_nodes if hasattr(part.meta["val"], "ndim")]
    return aligned(tensors, rows, value.ndim) if hasattr(value, "ndim") else None


LAYER_RULES.add(
    *("where", "masked_fill", "clamp", "prelu", "threshold", "relu6", "selu"),
    *("__and__", "__or__", "__xor__"),
)(pointwise)


@LAYER_RULES.add("dropout", "feature_dropout")
def _dropout(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    return None if arguments["train"] else only(rows, node.args[0])


@LAYER_RULES.add("linear")
def _linear(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis = only(rows, node.args[0])
    return axis if axis is not None and axis < rank_of(node.args[0]) - 1 else None


@LAYER_RULES.add("addmm")
def _affine(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    return 0 if only(rows, arguments["mat1"]) == 0 else None


@LAYER_RULES.add("one_hot")
def _one_hot(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    """Without a number of classes, the largest entry of all rows decides it."""
    return only(rows, node.args[0]) if arguments["num_classes"] > 0 else None


@LAYER_RULES.add("mm", "bmm", "matmul")
def _product(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    one, other = node.args[:2]
    assert isinstance(one, fx.Node)
    assert isinstance(other, fx.Node)
    first, second, rank = rank_of(one), rank_of(other), rank_of(node)
    if min(first, second) < 2:
        return None
    if only(rows, one) == first - 2:
        return rank - 2
    if only(rows, other) == second - 1:
        return rank - 1
    if rows.get(one, 0) >= first - 2 > 0 or rows.get(other, 0) >= second - 2 > 0:
        return None
    return aligned([one, other], rows, rank, last=2)


@LAYER_RULES.add("scaled_dot_product_attention")
def _attention(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    if arguments.get("dropout_p"):
        return None
    names = ("query", "key", "value", "attn_mask")
    operands = [arguments[name] for name in names if isinstance(arguments[name], fx.Node)]
    if any(rows.get(one, 0) >= rank_of(one) - 2 for one in operands if one in rows):
        return None
    return aligned(operands, rows, rank_of(node), last=2)


@LAYER_RULES.add("einsum")
def _einsum(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    terms, _, result = arguments["equation"].replace(" ", "").partition("->")
    operands = list(arguments["tensors"])
    if not result or "." in arguments["equation"]:
        return None
    named = list(zip(operands, terms.split(","), strict=True))
    letters = {term[rows[one]] for one, term in named if one in rows}
    outside = any(letters & set(term) for one, term in named if one not in rows)
    single = all(term.count(next(iter(letters))) == 1 for one, term in named if one in rows)
    if len(letters) != 1 or outside or not single:
        return None
    place = result.find(next(iter(letters)))
    return place if place >= 0 else None


@LAYER_RULES.add("diff")
def _differences(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    """Values before and after the entries have the same rows."""
    operands = [arguments[name] for name in ("self", "prepend", "append")]
    places = {rows.get(one) for one in operands if one is not None}
    axis: int | None
    (axis,) = places if len(places) == 1 else (None,)
    return axis if axis != arguments["dim"] % rank_of(node) else None


@LAYER_RULES.add("convolution", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in "123"))
def _convolution(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    whole = rank_of(node.args[0]) == rank_of(arguments["weight"])
    return 0 if whole and only(rows, node.args[0]) == 0 else None


@LAYER_RULES.add("layer_norm", "rms_norm", "native_layer_norm")
def _normalized(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis = only(rows, node.args[0])
    last = rank_of(node.args[0]) - len(arguments["normalized_shape"])
    return axis if axis is not None and axis < last else None


@LAYER_RULES.add("group_norm", "native_group_norm", "instance_norm")
def _grouped(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    fixed = arguments.get("use_input_stats", True)
    return 0 if fixed and only(rows, node.args[0]) == 0 else None


@LAYER_RULES.add("batch_norm", "_native_batch_norm_legit_no_training")
def _batch_norm(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis = only(rows, node.args[0])
    return axis if axis != 1 and not arguments.get("training") else None


@LAYER_RULES.add(
    *("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod", "sort", "argsort"),
    *("flip", "roll", "glu", "topk", "logcumsumexp"),
)
def _along(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis, dims = only(rows, node.args[0]), dims_of(arguments, rank_of(node.args[0]))
    return axis if dims is not None and axis not in dims else None


@LAYER_RULES.add(
    *("mean", "sum", "amax", "amin", "argmax", "argmin", "max", "min", "any", "all", "var", "std"),
    *("norm", "linalg_vector_norm", "logsumexp", "prod", "var_mean", "median", "count_nonzero"),
    "std_mean",
)
def _reduced(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis, dims = only(rows, node.args[0]), dims_of(arguments, rank_of(node.args[0]))
    if axis is None or dims is None or axis in dims:
        return None
    return axis if arguments.get("keepdim") else axis - sum(dim < axis for dim in dims)


@LAYER_RULES.add("embedding")
def _embedded(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    return only(rows, arguments["indices"])


@LAYER_RULES.add(
    *(f"{kind}_pool{n}d" for kind in ("avg", "max", "adaptive_avg", "adaptive_max") for n in "123"),
    *("_adaptive_avg_pool2d", "max_pool2d_with_indices", "im2col", "col2im"),
    *(f"upsample_{kind}" for kind in ("nearest2d", "bilinear2d", "bicubic2d", "nearest1d")),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "pixel_shuffle", "pixel_unshuffle"),
    *("channel_shuffle", "__interpolate"),
)
def _spatial(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    """Operations on images, which have a batch if they have an axis before channels."""
    spatial = next((int(c) for c in str(node.target) if c in "123"), 2)
    whole = rank_of(node.args[0]) == spatial + 2
    return 0 if whole and only(rows, node.args[0]) == 0 else None


@LAYER_RULES.add("tril", "triu")
def _triangle(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis = only(rows, node.args[0])
    return axis if axis is not None and axis < rank_of(node) - 2 else None
