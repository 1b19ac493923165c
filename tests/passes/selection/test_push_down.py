"""Selections that move up: the same results, of fewer rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

import graphprog as gp
from graphprog.backends.onnx_model.export_program import exported
from graphprog.passes.selection.push_down import push_down_selection

ROWS, WIDTH = 6, 8


class Block(nn.Module):
    """Attention and a layer for each token, then what a case reads."""

    def __init__(self, read: Callable[[Tensor], object], causal: bool = False) -> None:
        super().__init__()
        self.read, self.causal = read, causal
        self.parts = nn.Linear(WIDTH, 3 * WIDTH)
        self.out, self.feed = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> object:
        split = self.parts(x).reshape(*x.shape[:2], 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        found = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        x = x + self.out(found.transpose(1, 2).reshape(x.shape))
        return self.read(x + self.feed(self.norm(x)).relu())


def trimmed(model: nn.Module, *inputs: Tensor, vary: tuple[int, ...] = (0,)) -> list[list[int]]:
    """Sizes that linear layers compute, once results were found to be the same."""
    axes = tuple(dict.fromkeys(vary, Dim.DYNAMIC) for _ in inputs)
    program = torch.export.export(model.eval(), inputs, dynamic_shapes=axes, strict=False)
    with torch.no_grad():
        wanted = program.module()(*inputs)
        push_down_selection(program.graph_module)
        found = program.module()(*inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    linear = torch.ops.aten.linear.default
    nodes = program.graph.find_nodes(op="call_function", target=linear)
    return [[*node.meta["val"].shape[1:]] for node in nodes]


@pytest.mark.parametrize(
    ("read", "rows"),
    [
        pytest.param(lambda x: x[:, 0], 1, id="first"),
        pytest.param(lambda x: x[:, -1], 1, id="last"),
        pytest.param(lambda x: x[:, -2], 1, id="last-but-one"),
        pytest.param(lambda x: x[:, 1:4].mean(1), 3, id="stretch"),
        pytest.param(lambda x: x[:, -2:], 2, id="stretch-at-the-end"),
        pytest.param(lambda x: x.transpose(0, 1)[2], 1, id="transposed"),
        pytest.param(lambda x: x.tanh().unsqueeze(1).view(-1, ROWS, WIDTH)[:, 5], 1, id="reshaped"),
        pytest.param(lambda x: (x[:, 0] * x[:, 0], x[:, 0].exp()), 1, id="twice-the-same"),
        pytest.param(lambda x: (x[:, 0], x[:, 1]), ROWS, id="two-of-them"),
        pytest.param(lambda x: (x[:, 0], x), ROWS, id="all-returned"),
        pytest.param(lambda x: x.mean(1), ROWS, id="all-read"),
        pytest.param(lambda x: x.softmax(1)[:, 0], ROWS, id="mixed"),
        pytest.param(lambda x: x.softmax(2)[:, 0], 1, id="mixed-along-another"),
        pytest.param(lambda x: x[:, ::2], ROWS, id="every-other"),
    ],
)
def test_what_is_read_is_computed(read: Callable[[Tensor], object], rows: int) -> None:
    torch.manual_seed(0)
    parts, out, feed = trimmed(Block(read), torch.randn(3, ROWS, WIDTH))
    assert (out, feed) == ([rows, WIDTH], [rows, WIDTH])
    assert parts == [ROWS, 3 * WIDTH]  # keys and values are of all


@pytest.mark.parametrize("place", [2, -1])
def test_queries_that_hide_others_by_their_place_attend_under_a_mask(place: int) -> None:
    model = Block(lambda x: x[:, place], causal=True)
    program = torch.export.export(model, (torch.randn(3, ROWS, WIDTH),), strict=False)
    push_down_selection(program.graph_module)
    attention = torch.ops.aten.scaled_dot_product_attention.default
    (node,) = program.graph.find_nodes(op="call_function", target=attention)
    assert node.meta["val"].shape == (3, 2, 1, WIDTH // 2)
    assert (node.args[3] is None) == (place == -1)  # the last hides nothing
    assert trimmed(model, torch.randn(3, ROWS, WIDTH))[1:] == [[1, WIDTH], [1, WIDTH]]


def test_lengths_that_vary() -> None:
    found = trimmed(Block(lambda x: x[:, -1]), torch.randn(3, ROWS, WIDTH), vary=(0, 1))
    assert found[1:] == [[1, WIDTH], [1, WIDTH]]


def test_dropout_that_is_on_stays_where_it_is() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, True)[:, 0]

    program = torch.export.export(Noisy(), (torch.ones(2, 5, 3),), strict=False)
    push_down_selection(program.graph_module)
    (dropout,) = program.graph.find_nodes(op="call_function", target=torch.ops.aten.dropout.default)
    assert dropout.meta["val"].shape == (2, 5, 3)


def test_graphs_that_change_their_values_stay() -> None:
    class Changing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            y.add_(1)
            return y[:, 0]

    program = torch.export.export(Changing(), (torch.ones(2, 5),), strict=False)
    before = str(program.graph)
    push_down_selection(program.graph_module)
    assert str(program.graph) == before


def test_a_vision_transformer() -> None:
    model = timm.create_model(
        "vit_tiny_patch16_224", depth=2, img_size=32, embed_dim=24, num_heads=3, num_classes=4
    )
    found = trimmed(model, torch.randn(2, 3, 32, 32))
    assert [sizes[0] for sizes in found] == [5, 5, 5, 5, 5, 1, 1, 1, 4]


def test_a_bert_with_a_mask() -> None:
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        attn_implementation="sdpa",
    )
    model = transformers.BertForSequenceClassification(config).eval().requires_grad_(False)
    ids, mask = torch.randint(50, (3, 7)), torch.ones(3, 7, dtype=torch.int64)
    mask[1, 5:] = 0
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    graph = gp.capture(model, (), {"input_ids": ids, "attention_mask": mask}, axes)
    task = gp.compile(graph, gp.Program([]))
    program = exported(task, (ids, mask))
    with torch.no_grad():
        (wanted,) = program.module()(ids, mask)
        push_down_selection(program.graph_module)
        (found,) = program.module()(ids, mask)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    linear = torch.ops.aten.linear.default
    nodes = program.graph.find_nodes(op="call_function", target=linear)
    lengths = [node.meta["val"].shape[1] for node in nodes if node.meta["val"].ndim == 3]
    whole = [not isinstance(length, int) for length in lengths[6:]]
    assert whole == [False, True, True, False, False, False]  # keys and values are of all
