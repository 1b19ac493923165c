"""What values depend on, against expectations written by hand."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.analysis.attention import ATTENTION
from graphprog.ir.dependence.classes import Dependence, class_name
from graphprog.ir.parts.cut import bytes_of
from tests.models.networks.corner import Layer
from tests.models.tiny_models import tiny


class Images(nn.Module):
    """A convolution, a norm, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


class Patches(nn.Module):
    """A transformer over the patches of images, with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 5, 16))
        self.layers = nn.Sequential(Layer(16, 2), Layer(16, 2))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).mT
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), y], 1) + self.places
        return self.head(self.layers(y)[:, 0])


class Centered(nn.Module):
    """Every row is compared with the mean of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.tanh() - x.mean(0))


@cache
def images() -> gp.Graph:
    torch.manual_seed(0)
    return gp.capture(Images().eval(), (torch.rand(2, 3, 8, 8),))


def by_operation(found: Dependence) -> list[tuple[str, str]]:
    """Name and class of each operation on tensors, in order; views are left out."""
    skipped = ("view", "reshape", "unflatten", "transpose", "flatten", "unsqueeze", "getitem")
    lines = []
    for line in found.text.splitlines()[1:-1]:
        depends, call = line.split("%", 1)
        name = call.split(" = ")[1].split("(")[0].split(".")[0]
        if name not in skipped:
            lines.append((name, depends.strip()))
    return lines


def test_a_network_without_a_program() -> None:
    assert by_operation(images().explain()) == [
        (name, "weights + samples") for name in ("conv2d", "batch_norm", "relu", "mean", "linear")
    ]


def test_a_pattern_on_images_is_met_at_once() -> None:
    task = gp.compile(images(), gp.Program([gp.Additive(squash="tanh")]))
    assert by_operation(task.explain()) == [
        ("tanh", "program"),
        ("add", "program + samples"),
        *((name, "weights + program + samples") for name in ("conv2d", "batch_norm", "relu")),
        *((name, "weights + program + samples") for name in ("mean", "linear")),
    ]


def test_a_head_is_all_that_a_program_changes() -> None:
    task = gp.compile(images(), gp.Program(align=gp.LinearHead(2, at="features")))
    found = by_operation(task.explain())
    assert found[:4] == [(n, "weights + samples") for n in ("conv2d", "batch_norm", "relu", "mean")]
    assert found[4:] == [("linear", "weights + program + samples")]


def test_rows_of_a_transformer_are_independent() -> None:
    torch.manual_seed(0)
    graph = gp.capture(Patches().eval(), (torch.rand(2, 3, 8, 8),))
    found = graph.explain()
    named = by_operation(found)
    assert ("expand", "weights") in named
    assert {depends for _, depends in named} == {"weights", "weights + samples"}
    assert found.mixing() == []
    prompt = gp.compile(graph, gp.Program([gp.Concatenative(2, at="embedding")]))
    classes = {class_name(one) for one in prompt.explain().classes.values()}
    assert "weights + program + samples" in classes
    assert not any("batch-mates" in name for name in classes)


def test_a_prompt_of_a_causal_model() -> None:
    task = gp.compile(tiny("reader"), gp.Program([gp.Concatenative(3, at="tokens")]))
    found = by_operation(task.explain())
    assert ("embedding", "weights + samples") in found
    assert ("expand", "program") in found
    assert found[found.index(("cat", "weights + program + samples")) :] == [
        (name, "weights + program + samples")
        for name in ("cat", "linear", "linear", "scaled_dot_product_attention", "linear")
    ]


def test_a_mean_over_the_batch_mixes_rows() -> None:
    graph = gp.capture(Centered(), (torch.rand(2, 6),))
    found = graph.explain()
    assert by_operation(found) == [
        ("tanh", "samples"),
        ("mean", "samples + batch-mates"),
        ("sub", "samples + batch-mates"),
        ("linear", "weights + samples + batch-mates"),
    ]
    assert found.mixing() == ["mean.dim"]
    assert "rows may mix in: mean.dim" in str(found)


def test_a_fixed_batch_proves_nothing() -> None:
    graph = gp.capture(Centered(), (torch.rand(2, 6),), dynamic_axes={"x": {}})
    assert graph.explain().mixing() == ["input x, where not every input has rows on axis 0"]


def test_positions_depend_on_nothing_but_weights() -> None:
    found = by_operation(tiny("located").explain())
    assert ("arange", "nothing") in found
    assert found.count(("embedding", "weights")) == 1


def test_a_frozen_part_of_a_program_counts_as_weights() -> None:
    added = gp.Additive(value=gp.Fixed(torch.ones(3, 8, 8)))
    found = gp.compile(images(), gp.Program([added])).explain()
    assert not any("program" in name for name, *_ in found.rows())


def test_bytes_and_flops_of_each_class() -> None:
    task = gp.compile(tiny("reader"), gp.Program([gp.Concatenative(3, at="tokens")]))
    rows = {name: (size, flops) for name, _, size, flops in task.explain().rows()}
    batch, words, prompt, width = 2, 5, 3, 4
    assert rows["weights + samples"] == (batch * words * width * 4, 0)
    length = words + prompt
    linears = 2 * batch * length * (width * width + width * width + width * 3)
    attention = 2 * 2 * batch * length * length * width
    assert sum(flops for _, flops in rows.values()) == linears + attention


def test_the_table_has_shares() -> None:
    task = gp.compile(images(), gp.Program(align=gp.LinearHead(2, at="features")))
    lines = str(task.explain()).splitlines()
    assert lines[0].split() == ["depends", "on", "values", "bytes", "share", "FLOPs", "share"]
    convolution, head = 2 * 2 * 4 * 27 * 64, 2 * 2 * 4 * 2
    share = f"{convolution / (convolution + head):.1%}"
    assert [line for line in lines if line.startswith("weights + samples") and share in line]
    assert lines[-1].startswith("all ")


def test_sizes_after_a_prompt_are_those_of_the_capture_and_the_prompt() -> None:
    task = gp.compile(tiny("reader"), gp.Program([gp.Concatenative(3, at="tokens")]))
    (attended,) = task.graph.code.find_nodes(op="call_function", target=ATTENTION)
    assert bytes_of(attended.meta["val"]) == 2 * (5 + 3) * 4 * 4
