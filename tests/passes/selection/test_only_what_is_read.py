"""The pass on random networks over tokens, and on models of the libraries."""

from __future__ import annotations

import pytest
import timm
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils.flop_counter import FlopCounterMode

import graphprog as gp
from graphprog.ir.graph import Graph
from graphprog.passes.selection.only_what_is_read import OnlyWhatIsRead, flops_saved
from graphprog.passes.selection.selections import Selections
from graphprog.passes.selection.writer import Writer
from graphprog.passes.verify import CHECKS
from tests.models.networks.random_networks import Network, networks
from tests.models.networks.token_networks import LENGTH, WIDTH, Tokens, token_networks

few = settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])


def same(graph: Graph, *inputs: Tensor, rtol: float = 1e-10) -> Graph:
    """What is read of a graph, once values and gradients were found to be the same."""
    fewer = OnlyWhatIsRead()(graph)
    for name in ("structure", "metadata", "polymorphism"):
        CHECKS[name](fewer, graph)
    learned = [p for p in graph.weights.program.parameters() if p.requires_grad]
    results = []
    for one in (graph, fewer):
        given = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
        flat = one.run(given)
        leaves = [x for x in given if x.requires_grad] + learned
        total = sum((y * y.detach().cos()).sum() for y in flat)
        found = torch.autograd.grad(total, leaves, allow_unused=True)
        results.append((flat, [torch.tensor(0.0) if g is None else g for g in found]))
    torch.testing.assert_close(*results, rtol=rtol, atol=rtol)
    return fewer


@few
@given(network=token_networks())
def test_random_networks_over_tokens(network: Tokens) -> None:
    graph = gp.capture(network, (torch.randn(3, LENGTH, WIDTH).double(),))
    same(graph, torch.randn(4, LENGTH, WIDTH).double())


@few
@given(network=networks(), data=st.data())
def test_random_networks_with_programs(network: Network, data: st.DataObject) -> None:
    graph = gp.capture(network, (torch.randn(2, 4),))
    key = data.draw(st.sampled_from(sorted(graph.sites)))
    program = gp.Program([gp.Additive(at=key)], align=gp.FixedMap(classes=2))
    task = gp.compile(graph, program)
    same(task.graph, torch.randn(3, 4), rtol=1e-5)


@pytest.mark.parametrize(
    ("steps", "read", "share"),
    [
        pytest.param(["attention", "norm", "linear", "gelu", "linear"], "first", 0.3, id="first"),
        pytest.param(["causal", "rms", "gated", "linear"], "last", 0.3, id="last"),
        pytest.param(["causal", "flattened", "cap", "places"], "by-row", 0.3, id="by-row"),
        pytest.param(["masked", "places", "linear", "linear"], "two-by-row", 0.2, id="two-by-row"),
        pytest.param(["written", "linear", "linear"], "flat-by-row", 0.3, id="flat-by-row"),
        pytest.param(["causal", "linear", "linear"], "listed", 0.2, id="listed"),
        pytest.param(["linear", "linear"], "units", 0.3, id="units"),
        pytest.param(["linear", "linear"], "nested", 0.6, id="nested"),
        pytest.param(["linear", "mixing", "linear"], "first", 0.4, id="mixed-before"),
        pytest.param(["linear", "mixing"], "first", 0.0, id="mixed-last"),
        pytest.param(["linear", "linear"], "of-its-own", 0.0, id="of-its-own"),
        pytest.param(["attention", "linear"], "two", 0.3, id="two"),
        pytest.param(["linear"], "whole", 0.0, id="whole"),
    ],
)
def test_how_much_is_saved(steps: list[str], read: str, share: float) -> None:
    torch.manual_seed(0)
    model = Tokens([(step, False) for step in steps], read).double().eval()
    graph = gp.capture(model, (torch.randn(3, LENGTH, WIDTH).double(),))
    before, after = flops_saved(graph, same(graph, torch.randn(4, LENGTH, WIDTH).double()))
    assert (1 - after / before > share) if share else before == after


def test_a_place_outside_is_an_error_as_before() -> None:
    class Outside(nn.Module):
        def forward(self, x: Tensor, places: Tensor) -> Tensor:
            return (2 * x)[torch.arange(x.shape[0]), places]

    graph = gp.capture(Outside(), (torch.randn(3, LENGTH, WIDTH), torch.tensor([0, 1, 2])))
    fewer = same(graph, torch.randn(3, LENGTH, WIDTH), torch.tensor([-1, 5, -6]))
    for places in ([0, 6, 0], [0, -7, 0]):
        with pytest.raises((IndexError, RuntimeError)):
            fewer(torch.randn(3, LENGTH, WIDTH), torch.tensor(places))


class ReadTwice(nn.Module):
    """One value in two roles, of which a result needs few entries only in one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "attention":
            return nn.functional.scaled_dot_product_attention(x, x, x)[:, -1:]
        if self.kind == "masked":
            return nn.functional.scaled_dot_product_attention(x[:, :6], x, x, x[:, :6, :6])[:, 1]
        return (x[:, :, :6] @ x[:, :6, :6] if self.kind == "product" else x @ x)[:, :2]


@pytest.mark.parametrize("kind", ["attention", "masked", "product", "square"])
def test_what_is_read_in_two_roles_stays_whole_in_the_other(kind: str) -> None:
    width = LENGTH if kind == "square" else WIDTH
    graph = gp.capture(ReadTwice(kind), (torch.randn(3, LENGTH, width).double(),))
    same(graph, torch.randn(4, LENGTH, width).double())


@pytest.mark.filterwarnings("ignore:.*uint8")
def test_bytes_that_are_a_mask_are_no_numbers() -> None:
    code = torch.fx.Graph()
    x, marks = code.placeholder("x"), code.placeholder("marks")
    read = code.call_function(torch.ops.aten.index.Tensor, (x, [None, marks]))
    code.output((read,))
    with FakeTensorMode(shape_env=ShapeEnv()):
        x.meta["val"] = torch.empty(3, LENGTH)
        for dtype, selects in ((torch.uint8, False), (torch.bool, False), (torch.int32, True)):
            marks.meta["val"] = torch.empty(2, dtype=dtype)
            found = Selections(Writer(code), {}).of(read)
            assert (found is not None) == selects


def test_interfaces_that_are_kept() -> None:
    model = Tokens([("attention", False), ("linear", False)], "first").double().eval()
    graph = gp.capture(model, (torch.randn(3, LENGTH, WIDTH).double(),))
    fewer = OnlyWhatIsRead()(graph)
    assert "parts.0.out:in" in graph.sites
    assert "parts.0.out:in" not in fewer.sites
    assert fewer.sites.keys() < graph.sites.keys()
    kept = OnlyWhatIsRead(keep=("parts.0.out:in",))(graph)
    x = torch.randn(4, LENGTH, WIDTH).double()
    found = (one.evaluate(["parts.0.out:in"], [x])["parts.0.out:in"] for one in (graph, kept))
    assert torch.equal(*found)
    with pytest.raises(gp.errors.InterfaceError, match="parts"):
        OnlyWhatIsRead(keep=("parts.7:out",))(graph)


@pytest.fixture(scope="module")
def gpt2() -> Graph:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=97,
        n_positions=32,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=1,
        eos_token_id=1,
    )
    model = transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)
    ids = torch.randint(97, (2, 7))
    kwargs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    return gp.capture(model, (), kwargs, axes)


def padded() -> tuple[Tensor, Tensor]:
    ids, mask = torch.randint(97, (3, 9)), torch.ones(3, 9, dtype=torch.int64)
    mask[1, 6:], mask[2, :4] = 0, 0
    return ids, mask


def test_the_last_token_of_a_prompted_gpt2(gpt2: Graph) -> None:
    prompt = gp.Concatenative(at="embedding", length=4, value=gp.Learnable("normal"))
    task = gp.compile(gpt2, gp.Program([prompt], align=gp.LastToken()))
    fewer = same(task.graph, *padded(), rtol=1e-5)
    before, after = flops_saved(task.graph, fewer)
    assert 1 - after / before > 0.3  # of two blocks and a head for one token
    linear = fewer.code.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    lengths = [node.meta["val"].shape[1] for node in linear if node.meta["val"].ndim == 3]
    assert lengths[-3:] == [1, 1, 1]  # of the last block: its projection, and both layers
    text = str(task.explain())
    assert "of FLOPs saved" in text
    assert "up to split" in text


def test_training_runs_what_is_read(gpt2: Graph) -> None:
    prompt = gp.Concatenative(at="embedding", length=4, value=gp.Learnable("normal"))
    task = gp.compile(gpt2, gp.Program([prompt], align=gp.LastToken()))
    inputs = padded()
    whole = task.graph.run(inputs)[0]
    assert torch.equal(task(*inputs), whole)  # in evaluation, bit for bit
    task.train()
    with FlopCounterMode(display=False) as counter:
        found = task(*inputs)
    with FlopCounterMode(display=False) as complete:
        task.graph.run(inputs)
    assert counter.get_total_flops() < 0.75 * complete.get_total_flops()
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)
    assert "hidden[1]" in task.graph.aliases  # the graph that is read and recorded is whole


def test_a_vision_transformer_with_mapped_classes() -> None:
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", depth=2, img_size=32, embed_dim=24, num_heads=3, num_classes=50
    )
    graph = gp.capture(model.eval().requires_grad_(False), (torch.rand(2, 3, 32, 32),))
    task = gp.compile(graph, gp.Program([gp.Additive()], align=gp.FixedMap(classes=2)))
    fewer = same(task.graph, torch.rand(3, 3, 32, 32), rtol=1e-5)
    *_, head = fewer.code.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    assert head.meta["val"].shape[1] == 2  # of 50


def test_deep_prompts_are_not_computed_where_new_ones_replace_them() -> None:
    """Of a block, the class token and patches are read; of its prompts, keys and values alone."""
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", depth=3, img_size=32, embed_dim=24, num_heads=3, num_classes=5
    )
    graph = gp.capture(model.eval().requires_grad_(False), (torch.rand(2, 3, 32, 32),))
    parts = gp.methods.vpt_deep(tokens=10)
    task = gp.compile(graph, gp.Program(parts, align=gp.LinearHead(2, at="features")))
    fewer = same(task.graph, torch.rand(3, 3, 32, 32), rtol=1e-5)
    linear = fewer.code.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    lengths = [node.meta["val"].shape[1] for node in linear if node.meta["val"].ndim == 3]
    assert lengths.count(5) == 6  # of 15: projections and feed-forward layers of two blocks
    assert "features" in task.graph.aliases


def test_the_end_of_text_of_clip() -> None:
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=97,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=20,
        projection_dim=8,
        bos_token_id=95,
        eos_token_id=96,
    )
    model = transformers.CLIPTextModelWithProjection(config).eval().requires_grad_(False)
    ids = torch.randint(90, (3, 9))
    ids[0, 3], ids[1, 8], ids[2, 5] = 96, 96, 96
    graph = gp.capture(model, (), {"input_ids": ids}, {"input_ids": {0: "batch", 1: "sequence"}})
    task = gp.compile(graph, gp.Program(align=gp.LinearHead(3, at="text_projection:out")))
    before, after = flops_saved(task.graph, same(task.graph, ids, rtol=1e-5))
    assert 1 - after / before > 0.25
