"""Weights in 8 and 4 bits: computed where they are read, and kept by no backward pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import FileError, PassError, ProgramError
from graphprog.ir.memory.packed import PackedWeight, packed_weights
from graphprog.ir.memory.peak import PeakMemory
from graphprog.passes.optimize.agreement import Agreement, agreement


class Text(nn.Module):
    """A tied table, a linear layer, a product with a matrix stored the other way, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(50, 40), nn.Linear(40, 64)
        self.weight, self.bias = nn.Parameter(torch.randn(64, 40) / 8), nn.Parameter(torch.ones(40))
        self.head = nn.Linear(40, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.layer(self.table(ids)).relu()
        x = torch.addmm(self.bias, x.flatten(0, 1), self.weight).unflatten(0, ids.shape)
        heads = x[:, None]
        mixed = functional.scaled_dot_product_attention(heads / 2, heads, heads, is_causal=True)
        x = x + mixed[:, 0]
        return self.head(x)[:, -1]


IDS = torch.randint(50, (4, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    torch.manual_seed(0)
    model = Text().eval().requires_grad_(False)
    return gp.capture(model, (IDS,), dynamic_axes={"ids": {0: "batch", 1: "length"}})


@pytest.fixture(scope="module", params=["int8", "int4"])
def packed(request: pytest.FixtureRequest, graph: gp.Graph) -> gp.Graph:
    return gp.optimize(graph, weights=request.param)


def dequantized(weight: torch.Tensor, bits: int, axis: int) -> torch.Tensor:
    """What the docstring says, entry by entry, in double precision."""
    rows = (weight.t() if axis else weight).double()
    found, largest = torch.empty_like(rows), 127 if bits == 8 else 7
    for channel, row in enumerate(rows.flatten(1)):
        for entries in [slice(None)] if bits == 8 else map(_group, range(0, len(row), 32)):
            part = row[entries]
            scale = part.abs().max() / largest
            found[channel].view(-1)[entries] = (part / scale).round() * scale if scale else 0.0
    return found.t() if axis else found


def _group(start: int) -> slice:
    return slice(start, start + 32)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("shape", "axis"), [((5, 40), 0), ((40, 5), 1), ((6, 3, 3, 3), 0)])
def test_a_packed_weight_is_the_nearest_multiple_of_its_scale(
    bits: int, shape: tuple[int, ...], axis: int
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weight.select(axis, 2).zero_()
    packed = PackedWeight(weight, bits, axis)
    wanted = dequantized(weight, bits, axis)
    torch.testing.assert_close(packed.unpack().double(), wanted, rtol=1e-5, atol=1e-7)
    assert packed.bytes < weight.numel() * 4 * (0.36 if bits == 8 else 0.3)


def test_the_graph_computes_what_the_unpacked_weights_say(packed: gp.Graph) -> None:
    weights = packed_weights(packed.weights.source)
    assert set(weights) == {"layer.weight", "weight", "head.weight"}
    model = Text().eval().requires_grad_(False)
    state = dict(packed.weights.source.named_parameters())
    state |= {path: one.unpack() for path, one in weights.items()}
    state["table.weight"] = state["head.weight"]
    model.load_state_dict(state)
    torch.testing.assert_close(packed(IDS), model(IDS), rtol=1e-6, atol=1e-6)


def test_gradients_are_those_of_the_unpacked_weights(packed: gp.Graph, graph: gp.Graph) -> None:
    weights = packed_weights(packed.weights.source)
    model = Text().eval().requires_grad_(False)
    state = {**packed.weights.source.state_dict()}
    state = {name: value for name, value in state.items() if name in model.state_dict()}
    state |= {path: one.unpack() for path, one in weights.items()}
    state["table.weight"] = state["head.weight"]
    model.load_state_dict(state)
    plain = gp.capture(model, (IDS,), dynamic_axes={"ids": {0: "batch", 1: "length"}})
    program = gp.Program([gp.Concatenative(at="table:out", length=3)])
    found = []
    for source in (packed, plain):
        task = gp.compile(source, program).train()
        functional.cross_entropy(task(IDS), IDS[:, 0]).backward()
        (parameter,) = task.program.parameters()
        found.append(parameter.grad)
    assert torch.equal(*found)
    assert found[0].abs().sum() > 0


class Deep(nn.Module):
    """Products with the transposes of 8 weights; ``early`` transposes all of them first."""

    def __init__(self, early: bool) -> None:
        super().__init__()
        self.early = early
        self.weights = nn.ParameterList([torch.randn(256, 256) / 16 for _ in range(8)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        transposes = [one.t() for one in self.weights] if self.early else []
        for number, one in enumerate(self.weights):
            x = x @ transposes[number] if self.early else functional.linear(x, one)
        return x


@pytest.mark.parametrize("early", [True, False])
def test_no_computed_weight_is_kept_for_the_backward_pass(early: bool) -> None:
    graph = gp.capture(Deep(early).eval().requires_grad_(False), (torch.rand(2, 256),))
    task = gp.compile(gp.optimize(graph, weights="int8"), gp.Program([gp.Additive()])).train()
    with PeakMemory() as memory:
        task(torch.rand(2, 256)).sum().backward()
    one = 256 * 256 * 4
    assert memory.peak < 2.5 * one  # of 8 weights


def test_programs_train_and_belong_to_the_source_in_few_bits(
    packed: gp.Graph, graph: gp.Graph, tmp_path: Path
) -> None:
    task = gp.compile(packed, gp.Program([gp.Concatenative(at="table:out", length=3)]))
    losses = gp.fit(task, (IDS, IDS[:, 0]), epochs=3, batch_size=4, lr=0.1, progress=False).records
    assert losses[-1].train_loss < losses[0].train_loss
    path = tmp_path / "program.safetensors"
    gp.save(task, path)
    assert torch.equal(gp.load(path, packed)(IDS), task(IDS))
    wanted = (
        r"(?s)quantize-weights.*than this one \(none\).*gp\.optimize\(graph, weights='int[48]'\)"
    )
    with pytest.raises(FileError, match=wanted):
        gp.load(path, graph)


def test_quantizing_again_gives_the_same_fingerprint(graph: gp.Graph) -> None:
    first, second = (gp.optimize(graph, weights="int8") for _ in range(2))
    assert first.fingerprint == second.fingerprint != graph.fingerprint
    assert first.history[-1].changed
    assert not packed_weights(graph.weights.source)


def test_the_history_reports_sizes_and_agreement(packed: gp.Graph) -> None:
    text = str(packed.history)
    assert "MB became" in text
    assert "outputs within" in text
    assert "labels agree in" in text
    summary = packed.summary()
    assert summary.parameters == 50 * 40 + 41 * 64 + 64 * 40 + 40


def test_agreement_counts_labels_and_measures_by_the_largest_output() -> None:
    one = gp.capture(nn.Linear(3, 2).eval(), (torch.rand(2, 3),))
    model = nn.Linear(3, 2).eval()
    model.load_state_dict(one.weights.source.state_dict())
    model.bias.data[0] += 100.0
    inputs = (torch.rand(5, 3),)
    found = agreement(one, gp.capture(model, (torch.rand(2, 3),)), inputs)
    assert found.difference == pytest.approx(100 / float(one(*inputs).abs().max()), rel=1e-4)
    assert (found.rows, found.same) == (5, int((one(*inputs).argmax(-1) == 0).sum()))
    assert str(Agreement(0.5, 0, 0)) == "outputs within 5.0e-01 of the largest"


def test_parts_copies_and_other_passes_keep_packed_weights(packed: gp.Graph) -> None:
    part = packed.cut("layer:out", "logits")
    values = packed.evaluate(["layer:out"], [IDS])
    assert torch.equal(part(values["layer:out"]), packed(IDS))
    again = gp.passes.MergeLinears()(gp.passes.FoldConstants()(packed))
    assert torch.equal(again(IDS), packed(IDS))
    task = gp.compile(packed, gp.Program(align=gp.FixedMap(classes=2)))
    torch.testing.assert_close(task.train()(IDS), packed(IDS)[:, :2])


def test_onnx_files_hold_and_compute_the_same_weights(packed: gp.Graph, tmp_path: Path) -> None:
    task = gp.compile(packed, gp.Program())
    report = gp.backends.onnx.export(task, tmp_path / "model.onnx")
    assert report.passed


def test_graph_files_hold_no_packed_weights(packed: gp.Graph, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"(?s)8 or 4 bits.*gp\.optimize\(graph, weights="):
        packed.save(tmp_path / "model.graph")


def test_bad_requests_are_refused(graph: gp.Graph, packed: gp.Graph) -> None:
    with pytest.raises(PassError, match=r"(?s)weights must be one of int8, int4, not 'int3'"):
        gp.optimize(graph, weights="int3")
    with pytest.raises(PassError, match=r"(?s)in [84] bits already.*captured graph"):
        gp.optimize(packed, weights="int8")
    with pytest.raises(PassError, match="has a program in it"):
        gp.optimize(gp.compile(graph, gp.Program(align=gp.FixedMap(2))).graph, weights="int8")
    with pytest.raises(ProgramError, match="bits must be 8 or 4, not 5"):
        gp.passes.QuantizeWeights(bits=5)


def test_weights_without_values_are_refused() -> None:
    with torch.device("meta"):
        model = nn.Linear(3, 2)
    empty = gp.capture(model.eval(), (torch.rand(2, 3, device="meta"),))
    with pytest.raises(PassError, match=r"(?s)weight weight .*meta device.*load the weights"):
        gp.optimize(empty, weights="int8")
    broken = nn.Linear(3, 2).requires_grad_(False)
    broken.weight[0, 0] = float("nan")
    with pytest.raises(PassError, match="weight weight has values that are not finite"):
        gp.optimize(gp.capture(broken.eval(), (torch.rand(2, 3),)), weights="int4")
