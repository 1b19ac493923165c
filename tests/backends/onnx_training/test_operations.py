"""Gradients written for ONNX, one operation at a time, beside autograd in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from graphprog.backends.onnx_model.translate import translate
from graphprog.backends.onnx_training.cleaning import cleaned
from graphprog.backends.onnx_training.gradients.attention import attention
from graphprog.backends.onnx_training.gradients.translated import (
    TABLE,
    require_translations,
    traced,
)
from graphprog.backends.onnxruntime.providers import open_session
from graphprog.ir.inputs import InputSpec

Operation = Callable[[Tensor], Tensor]


@functools.cache
def fixed(*sizes: int) -> Tensor:
    """Numbers that are always the same for a shape."""
    generator = torch.Generator().manual_seed(sum(sizes))
    return torch.randn(sizes, generator=generator, dtype=torch.float64)


@functools.cache
def _converted(dtype: torch.dtype, *sizes: int) -> Tensor:
    return fixed(*sizes).to(dtype)


def like(x: Tensor, *sizes: int) -> Tensor:
    return _converted(x.dtype, *sizes)


def convolution(
    axes: int, weight: tuple[int, ...], transposed: bool = False, **options
) -> Operation:
    names = {(1, False): F.conv1d, (2, False): F.conv2d, (3, False): F.conv3d}
    names |= {(1, True): F.conv_transpose1d, (2, True): F.conv_transpose2d}
    return lambda x: names[axes, transposed](x, like(x, *weight), **options)


def of_weight(axes: int, inputs: tuple[int, ...], transposed: bool = False, **options) -> Operation:
    names = {(1, False): F.conv1d, (2, False): F.conv2d}
    names |= {(1, True): F.conv_transpose1d, (2, True): F.conv_transpose2d}
    return lambda w: names[axes, transposed](like(w, *inputs), w, **options)


def attended(**options) -> Operation:
    def operation(x: Tensor) -> Tensor:
        heads = options.get("heads", 4)
        q, k, v = (like(x, 2, n, 6, 8) + x[:, :n] for n in (4, heads, heads))
        mask = options.get("mask")
        if mask is not None and mask.is_floating_point():
            mask = mask.to(x.dtype)
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=options.get("causal", False),
            scale=options.get("scale"),
            enable_gqa=heads != 4,
        )

    return operation


SEEN = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
SEEN[1, 0, 2] = False  # a query that sees nothing
ADDED = torch.zeros(2, 1, 6, 6).masked_fill(~SEEN, -torch.inf)

IMAGE, WAVE = (2, 4, 9, 7), (2, 4, 11)
CASES: dict[str, tuple[tuple[int, ...], Operation]] = {
    "conv": (IMAGE, convolution(2, (6, 4, 3, 3))),
    "conv-padded": (IMAGE, convolution(2, (6, 4, 3, 3), padding=1)),
    "conv-strided": (IMAGE, convolution(2, (6, 4, 3, 3), stride=2, padding=1)),
    "conv-strided-rest": (IMAGE, convolution(2, (6, 4, 2, 3), stride=(3, 2))),
    "conv-dilated": (IMAGE, convolution(2, (6, 4, 3, 3), dilation=2, padding=2)),
    "conv-dilated-strided": (IMAGE, convolution(2, (6, 4, 2, 2), dilation=3, stride=2)),
    "conv-depthwise": (IMAGE, convolution(2, (4, 1, 3, 3), groups=4, padding=1)),
    "conv-depthwise-strided": (IMAGE, convolution(2, (4, 1, 3, 3), groups=4, stride=2)),
    "conv-depthwise-uneven": (
        IMAGE,
        convolution(2, (4, 1, 3, 5), groups=4, stride=(3, 2), padding=(1, 2)),
    ),
    "conv-depthwise-1d": (WAVE, convolution(1, (4, 1, 4), groups=4, stride=3, padding=1)),
    "conv-depthwise-3d": ((1, 2, 4, 5, 6), convolution(3, (2, 1, 2, 3, 2), groups=2, stride=2)),
    "conv-grouped": (IMAGE, convolution(2, (6, 2, 3, 3), groups=2)),
    "conv-wide-padding": (IMAGE, convolution(2, (6, 4, 1, 1), padding=2)),
    "conv-patches": (IMAGE, convolution(2, (6, 4, 3, 3), stride=3)),
    "conv-1d": (WAVE, convolution(1, (6, 4, 5), stride=3)),
    "conv-1d-grouped": (WAVE, convolution(1, (4, 2, 4), groups=2, padding=2)),
    "conv-3d": ((1, 2, 4, 5, 6), convolution(3, (3, 2, 2, 3, 2), padding=1)),
    "conv-transposed": (IMAGE, convolution(2, (4, 3, 3, 3), True, stride=2, output_padding=1)),
    "conv-transposed-1d": (WAVE, convolution(1, (4, 3, 4), True, stride=2, padding=1, groups=2)),
    "weight": ((6, 4, 3, 3), of_weight(2, IMAGE, stride=2, padding=1)),
    "weight-grouped": ((6, 2, 3, 3), of_weight(2, IMAGE, groups=2)),
    "weight-dilated": ((6, 4, 3), of_weight(1, WAVE, dilation=2, stride=2)),
    "weight-transposed": ((4, 3, 3, 3), of_weight(2, IMAGE, True, stride=2, padding=1)),
    "max-pool": (IMAGE, lambda x: F.max_pool2d(x, 3, 2, 1)),
    "max-pool-ceil": (IMAGE, lambda x: F.max_pool2d(x, (3, 2), ceil_mode=True)),
    "max-pool-1d": (WAVE, lambda x: F.max_pool1d(x, 3, 2)),
    "max-pool-3d": ((1, 2, 4, 5, 6), lambda x: F.max_pool3d(x, 2)),
    "avg-pool": (IMAGE, lambda x: F.avg_pool2d(x, 3, 2, 1)),
    "avg-pool-uncounted": (IMAGE, lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    "avg-pool-ceil": (IMAGE, lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True)),
    "avg-pool-divisor": (IMAGE, lambda x: F.avg_pool2d(x, (3, 2), 1, divisor_override=5)),
    "avg-pool-1d": (WAVE, lambda x: F.avg_pool1d(x, 3, 3)),
    "avg-pool-3d": ((1, 2, 4, 5, 6), lambda x: F.avg_pool3d(x, 2)),
    "adaptive-avg": (IMAGE, lambda x: F.adaptive_avg_pool2d(x, (4, 3))),
    "adaptive-avg-one": (IMAGE, lambda x: F.adaptive_avg_pool2d(x, 1)),
    "adaptive-avg-1d": (WAVE, lambda x: F.adaptive_avg_pool1d(x, 4)),
    "nearest": (IMAGE, lambda x: F.interpolate(x, scale_factor=2.0)),
    "nearest-1d": (WAVE, lambda x: F.interpolate(x, size=17)),
    "bilinear": (IMAGE, lambda x: F.interpolate(x, size=(5, 13), mode="bilinear")),
    "bilinear-corners": (
        IMAGE,
        lambda x: F.interpolate(x, size=(15, 12), mode="bilinear", align_corners=True),
    ),
    "linear": (WAVE, lambda x: F.interpolate(x, size=16, mode="linear")),
    "linear-scaled": (WAVE, lambda x: F.interpolate(x, scale_factor=1.5, mode="linear")),
    "bicubic": (IMAGE, lambda x: F.interpolate(x, size=(14, 14), mode="bicubic")),
    "batch-norm": (
        IMAGE,
        lambda x: F.batch_norm(x, like(x, 4), like(x, 4) ** 2 + 1, like(x, 4), like(x, 4)),
    ),
    "layer-norm": (WAVE, lambda x: F.layer_norm(x, (11,), like(x, 11), like(x, 11))),
    "layer-norm-two": (IMAGE, lambda x: F.layer_norm(x, (9, 7))),
    "layer-norm-weight": ((7,), lambda w: F.layer_norm(like(w, *IMAGE), (7,), w, w)),
    "rms-norm": (WAVE, lambda x: F.rms_norm(x, (11,), like(x, 11))),
    "group-norm": (IMAGE, lambda x: F.group_norm(x, 2, like(x, 4), like(x, 4))),
    "instance-norm": (IMAGE, F.instance_norm),
    "embedding": ((9, 5), lambda w: F.embedding(torch.tensor([[1, 3, 1], [8, 0, 3]]), w)),
    "attention": ((2, 4, 6, 8), attended()),
    "attention-causal": ((2, 4, 6, 8), attended(causal=True)),
    "attention-masked": ((2, 4, 6, 8), attended(mask=SEEN, scale=0.3)),
    "attention-added": ((2, 4, 6, 8), attended(mask=ADDED)),
    "attention-grouped": ((2, 4, 6, 8), attended(heads=2, causal=True)),
    "softmax": (WAVE, lambda x: x.softmax(-1)),
    "log-softmax": (WAVE, lambda x: x.log_softmax(1)),
    "relu": (WAVE, F.relu),
    "relu6": (WAVE, lambda x: F.relu6(4 * x)),
    "gelu": (WAVE, F.gelu),
    "gelu-tanh": (WAVE, lambda x: F.gelu(x, approximate="tanh")),
    "silu": (WAVE, F.silu),
    "mish": (WAVE, F.mish),
    "elu": (WAVE, F.elu),
    "selu": (WAVE, F.selu),
    "leaky-relu": (WAVE, F.leaky_relu),
    "prelu": (WAVE, lambda x: F.prelu(x, like(x, 4))),
    "softplus": (WAVE, F.softplus),
    "sigmoid": (WAVE, torch.sigmoid),
    "tanh": (WAVE, torch.tanh),
    "hardswish": (WAVE, lambda x: F.hardswish(3 * x)),
    "hardsigmoid": (WAVE, lambda x: F.hardsigmoid(3 * x)),
    "hardtanh": (WAVE, F.hardtanh),
    "threshold": (WAVE, lambda x: F.threshold(x, 0.3, -1.0)),
    "softshrink": (WAVE, F.softshrink),
    "hardshrink": (WAVE, F.hardshrink),
    "glu": (WAVE, lambda x: F.glu(x, 1)),
    "clamp": (WAVE, lambda x: x.clamp(-0.5, 0.7)),
    "pad": (IMAGE, lambda x: F.pad(x, (1, 2, 0, 3), value=0.5)),
    "pad-reflect": (IMAGE, lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect")),
    "pad-replicate": (IMAGE, lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate")),
    "pad-replicate-1d": (WAVE, lambda x: F.pad(x, (2, 1), mode="replicate")),
    "pad-circular": (WAVE, lambda x: F.pad(x, (2, 1), mode="circular")),
    "slice": (IMAGE, lambda x: x[:, 1:3, ::2]),
    "slice-last": (WAVE, lambda x: x[..., -3:]),
    "slice-middle": (IMAGE, lambda x: x[:, :, 2:-1]),
    "select-inner": (IMAGE, lambda x: x[:, :, 3]),
    "select": (IMAGE, lambda x: x[:, -1]),
    "index": (IMAGE, lambda x: x[torch.tensor([1, 0, 1]), torch.tensor([3, 0, 3])]),
    "index-select": (IMAGE, lambda x: x.index_select(2, torch.tensor([4, 4, 0]))),
    "gather": (WAVE, lambda x: x.gather(2, torch.tensor([[[0, 0, 3]] * 4] * 2))),
    "index-add": (WAVE, lambda x: like(x, 3, 4, 11).index_add(0, torch.tensor([2, 2]), x)),
    "scatter-add": (
        WAVE,
        lambda x: like(x, 2, 4, 3).scatter_add(
            2, torch.tensor([[[0, 1, 2, 2] * 2 + [1] * 3] * 4] * 2), x
        ),
    ),
    "cumsum": (WAVE, lambda x: x.cumsum(2)),
    "mean": (IMAGE, lambda x: x.mean((2, 3))),
    "var": (IMAGE, lambda x: x.var((2, 3))),
    "amax": (WAVE, lambda x: x.amax(2)),
    "max": (WAVE, lambda x: x.max(1).values),
    "norm": (WAVE, lambda x: x.norm(dim=1)),
    "normalize": (WAVE, lambda x: F.normalize(x, dim=1)),
    "logsumexp": (WAVE, lambda x: x.logsumexp(1)),
    "cat-split": (WAVE, lambda x: torch.cat([*x.split([1, 3], 1)[::-1], x], 1)),
    "roll": (IMAGE, lambda x: x.roll((1, 2), (2, 3))),
    "flip": (IMAGE, lambda x: x.flip(2)),
    "unfold": (WAVE, lambda x: x.unfold(2, 3, 2)),
    "pixel-shuffle": (IMAGE, lambda x: F.pixel_shuffle(x, 2)),
    "einsum": (IMAGE, lambda x: torch.einsum("bchw,kc->bhk", x, like(x, 5, 4))),
    "matmul": (WAVE, lambda x: x @ like(x, 11, 3)),
    "affine": (WAVE, lambda x: F.linear(x, like(x, 3, 11), like(x, 3))),
    "where": (WAVE, lambda x: torch.where(x > 0, x * x, x.exp())),
    "cross-entropy": ((6, 5), lambda x: F.cross_entropy(x, torch.tensor([0, 4, -100, 2, 2, 1]))),
    "smooth-labels": (
        (4, 5),
        lambda x: F.cross_entropy(x, torch.tensor([0, 4, 2, 2]), label_smoothing=0.1),
    ),
    "cross-entropy-2d": (
        (2, 5, 3),
        lambda x: F.cross_entropy(x, torch.tensor([[0, 4, 1], [3, 2, 2]])),
    ),
    "mse": (WAVE, lambda x: F.mse_loss(x, like(x, *WAVE))),
    "l1": (WAVE, lambda x: F.l1_loss(x, like(x, *WAVE))),
    "smooth-l1": (WAVE, lambda x: F.smooth_l1_loss(x, like(x, *WAVE))),
    "huber": (WAVE, lambda x: F.huber_loss(x, like(x, *WAVE))),
    "binary": (WAVE, lambda x: F.binary_cross_entropy_with_logits(x, like(x, *WAVE).sigmoid())),
    "kl": (
        WAVE,
        lambda x: F.kl_div(x.log_softmax(1), like(x, *WAVE).softmax(1), reduction="batchmean"),
    ),
    "cosine": (WAVE, lambda x: F.cosine_similarity(x, x.flip(2), 1)),
}


def point(name: str) -> Tensor:
    return fixed(*CASES[name][0])


def gradient(name: str, x: Tensor, written_out: bool) -> Tensor:
    """Of a sum of products of what an operation returns, which is no constant for any of them."""
    operation = CASES[name][1]
    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attention if written_out else original
    try:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            found = operation(x)
            value = (found * (found + like(found, *found.shape))).sum()
            return torch.autograd.grad(value, x)[0]
    finally:
        F.scaled_dot_product_attention = original


def gradients(names: list[str], dtype: torch.dtype) -> fx.GraphModule:
    def function(*points: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(names, points, strict=True)
        return tuple(gradient(name, value, True) for name, value in pairs)

    points = [point(name).to(dtype) for name in names]
    function(*points)  # what is made once is not part of the trace
    return cleaned(traced(function, points, "fake"))


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_autograd(name: str) -> None:
    module = gradients([name], torch.float64)
    require_translations(module.graph.nodes)
    (found,) = module(point(name))
    torch.testing.assert_close(found, gradient(name, point(name), False), rtol=1e-7, atol=1e-7)


MISTRANSLATED = {"avg-pool-divisor", "linear-scaled"}
"""Whose results, not gradients, the exporter translates wrongly: exports of them are refused."""

TRANSLATED = [name for name in CASES if name not in MISTRANSLATED]
FIRST = list({name.partition("-")[0]: name for name in reversed(TRANSLATED)}.values())
"""One of each operation; its other options are translated in slow runs."""


def group(name: str) -> list[str]:
    """Names whose results are computed by one file."""
    return [other for other in TRANSLATED if (other in FIRST) == (name in FIRST)]


@functools.cache
def results_of_onnxruntime(first: str) -> dict[str, np.ndarray]:
    names = group(first)
    points = tuple(point(name).float() for name in names)
    program = torch.export.export(gradients(names, torch.float32), points, strict=False)
    specs = [
        InputSpec(f"input {name}", tuple(value.shape), value.dtype)
        for name, value in zip(names, points, strict=True)
    ]
    results = [f"gradient {name}" for name in names]
    model = translate(program, specs, results, None)
    session = open_session(ir.to_proto(model).SerializeToString(), "cpu")
    taken = {entry.name for entry in session.get_inputs()}
    feeds = {spec.name: value.numpy() for spec, value in zip(specs, points, strict=True)}
    values = session.run(results, {name: value for name, value in feeds.items() if name in taken})
    return dict(zip(names, values, strict=True))


@pytest.mark.xdist_group("operations-in-onnxruntime")
@pytest.mark.parametrize(
    "name",
    [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in TRANSLATED],
)
def test_onnxruntime_computes_them(name: str) -> None:
    wanted = gradient(name, point(name), False)
    found = torch.from_numpy(results_of_onnxruntime(group(name)[0])[name]).double()
    torch.testing.assert_close(found, wanted, rtol=2e-4, atol=2e-5)


FASTER = {torch.ops.aten.hardtanh_backward.default, torch.ops.aten.gelu.default}
"""Operations that the exporter translates too, but not as well."""


def test_every_function_is_of_an_operation_without_translation() -> None:
    assert len(TABLE) > 20
    for operation in TABLE.keys() - FASTER:
        node = fx.Graph().call_function(operation)
        with pytest.raises(Exception, match=str(operation)):
            require_translations([node])


def test_gradients_hold_at_sizes_that_vary() -> None:
    names = ["conv-strided", "conv-depthwise-strided", "max-pool", "avg-pool-uncounted"]
    names += ["adaptive-avg", "pad-replicate"]

    def function(*points: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(names, points, strict=True)
        found = []
        for name, value in pairs:
            x = value.detach().requires_grad_()
            with torch.enable_grad():
                result = CASES[name][1](x)
                found.append(torch.autograd.grad((result * result).sum(), x)[0])
        return tuple(found)

    points = [point(name) for name in names]
    function(*points)
    module = cleaned(traced(function, points))
    others = [fixed(3, 4, 12, 10) for _ in names]
    wanted = []
    for name, value in zip(names, others, strict=True):
        x = value.requires_grad_()
        result = CASES[name][1](x)
        wanted.append(torch.autograd.grad((result * result).sum(), x)[0])
    for found, right in zip(module(*others), wanted, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)
