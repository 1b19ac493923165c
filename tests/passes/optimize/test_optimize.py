"""Optimizing passes change rounding and nothing else, and say so by their contract."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.ir.printing import operator_name
from graphprog.passes.optimize.channels_last import ChannelsLast
from graphprog.passes.optimize.fold_batch_norm import FoldBatchNorm
from graphprog.passes.optimize.fold_padding import FoldPadding


class Net(nn.Module):
    """Pairs that fold, a convolution read twice that must not, and a norm in front of nothing."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, bias=bias)
        self.norm1 = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.norm2 = nn.BatchNorm2d(8, affine=False)
        self.shared = nn.Conv2d(8, 8, 1)
        self.norm3 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 12)
        for norm in (self.norm1, self.norm2, self.norm3):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            if norm.affine:
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm1(self.first(x)).relu()
        x = self.norm2(self.second(x)).relu()
        y = self.shared(x)
        return self.head((y + self.norm3(y)).mean((2, 3)))


@pytest.fixture(params=[True, False], ids=["bias", "no-bias"])
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return Net(request.param).eval()


def operators(graph: gp.Graph) -> list[str]:
    return [operator_name(node) for node in graph.code.nodes if node.op == "call_function"]


def test_folding_keeps_the_numbers_and_spares_what_is_read_twice(net: nn.Module) -> None:
    graph = gp.capture(net, (torch.rand(2, 3, 12, 12),))
    folded = FoldBatchNorm()(graph)
    x = torch.randn(5, 3, 12, 12)
    torch.testing.assert_close(folded(x), net(x), rtol=1e-5, atol=1e-5)
    assert operators(graph).count("batch_norm") == 3
    assert operators(folded).count("batch_norm") == 1
    assert folded.history[-1].changed
    names = {name for name, _ in folded.weights.source.named_parameters()}
    assert {"first.folded_weight", "first.folded_bias", "norm3.weight"} <= names
    assert not names & {"first.weight", "norm1.weight", "norm1.bias"}
    assert folded.fingerprint != graph.fingerprint
    assert graph(x).equal(net(x))


def test_channels_last_keeps_the_numbers_and_rearranges_memory(net: nn.Module) -> None:
    graph = gp.capture(net, (torch.rand(2, 3, 12, 12),))
    moved = ChannelsLast()(graph)
    x = torch.randn(5, 3, 12, 12)
    torch.testing.assert_close(moved(x), net(x), rtol=1e-5, atol=1e-5)
    assert moved.weights.source.first.weight.is_contiguous(memory_format=torch.channels_last)
    assert not net.first.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_program_compiles_into_the_optimized_source(net: nn.Module) -> None:
    graph = gp.capture(net, (torch.rand(2, 3, 12, 12),))
    program = gp.Program(
        [gp.ResizePad((1, 6, 6)), gp.Additive(value=gp.Learnable("normal"))], align=gp.FixedMap(4)
    )
    plain, fast = gp.compile(graph, program), gp.compile(gp.optimize(graph), program)
    x = torch.rand(3, 1, 6, 6)
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-5, atol=1e-5)
    fast(x).sum().backward()
    assert fast.program.additive.value.grad.abs().sum() > 0


def test_a_source_with_a_program_is_not_optimized(net: nn.Module) -> None:
    task = gp.compile(gp.capture(net, (torch.rand(2, 3, 12, 12),)), gp.Program([gp.Additive()]))
    for optimizing in (FoldBatchNorm(), ChannelsLast()):
        with pytest.raises(gp.errors.PassError, match="has a program in it"):
            optimizing(task.graph)


def test_a_graph_without_convolutions_is_left_alone() -> None:
    graph = gp.capture(nn.Linear(3, 2), (torch.rand(2, 3),))
    assert gp.optimize(graph).text == graph.text
    assert not any(step.changed for step in gp.optimize(graph).history[-2:])


def test_text_names_passes_that_nobody_imported(net: nn.Module) -> None:
    graph = gp.capture(net, (torch.rand(2, 3, 12, 12),))
    pipeline = gp.passes.Pipeline.parse("fold-batch-norm ; fold-padding ; channels-last")
    assert str(pipeline(graph)) == str(gp.optimize(graph))


class Padded(nn.Module):
    """Paddings that fold, and paddings that must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=p) for p in (0, 1, 0, 0, 0)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third, fourth, fifth = self.convolutions
        x = first(nn.functional.pad(x, (2, 2, 1, 1)))
        x = second(nn.functional.pad(x, (1, 1, 1, 1)))
        x = third(nn.functional.pad(x, (0, 1, 0, 1)))
        x = fourth(nn.functional.pad(x, (1, 1, 1, 1), value=0.5))
        y = nn.functional.pad(x, (1, 1, 1, 1))
        return fifth(y) + y[:, :, 1:-1, 1:-1]


def test_folding_padding_takes_only_what_is_alike_on_both_sides() -> None:
    torch.manual_seed(0)
    model = Padded().eval()
    graph = gp.capture(model, (torch.rand(2, 3, 9, 9),))
    folded = FoldPadding()(graph)
    x = torch.randn(4, 3, 9, 9)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)
    assert operators(graph).count("pad") == 5
    assert operators(folded).count("pad") == 3


class Reused(nn.Module):
    """One convolution, called twice, with another normalization behind each call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])
        for norm in self.norms:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm in self.norms:
            x = norm(self.layer(x)).relu()
        return x.mean((2, 3))


def test_a_convolution_called_twice_gets_folded_weights_for_each_call() -> None:
    torch.manual_seed(0)
    model = Reused().eval()
    graph = gp.capture(model, (torch.rand(2, 3, 8, 8),))
    folded = FoldBatchNorm()(graph)
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)
    assert "batch_norm" not in operators(folded)
