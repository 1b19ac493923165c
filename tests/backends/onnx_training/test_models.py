"""Whole models: a hundred steps of ONNX Runtime have the losses of PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphprog as gp
from tests.models import prefix_models as memory_models
from tests.models import zoo
from tests.models.library_models import wav2vec
from tests.support.steps import require_equal_curves

STEPS = 100


class Pooled(nn.Module):
    """Convolutions of every stride, batch norm, three kinds of pooling, upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.BatchNorm2d(8), nn.SiLU())
        self.pools = nn.ModuleList([nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)])
        self.head = nn.Linear(32, 6)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = x + functional.interpolate(self.deep(x), scale_factor=2.0, mode="bilinear")
        x = self.pools[0](x) * self.pools[1](x)
        return self.head(functional.adaptive_avg_pool2d(x, 2).flatten(1))


class Heard(nn.Module):
    """An audio encoder and the mean of what it hears, as classes."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(32, 4)

    def forward(self, input_values: Tensor) -> Tensor:
        return self.head(self.encoder(input_values).last_hidden_state.mean(1))


class Messages(nn.Module):
    """Two rounds of messages along the edges of a graph, summed at their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            sent = layer(x)
            x = (sent + torch.zeros_like(sent).index_add(0, edges[1], sent[edges[0]])).relu()
        return self.head(x)


def made(model: type[nn.Module] | nn.Module) -> nn.Module:
    torch.manual_seed(0)
    built = model if isinstance(model, nn.Module) else model()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return built.eval().requires_grad_(False)


def some(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def ids(rows: int, length: int, seed: int) -> Tensor:
    return torch.randint(1, 90, (rows, length), generator=torch.Generator().manual_seed(seed))


def classes(rows: int, count: int, seed: int) -> Tensor:
    return torch.randint(count, (rows,), generator=torch.Generator().manual_seed(seed))


def test_a_cnn_with_batch_norm_and_pooling(tmp_path: Path) -> None:
    graph = gp.capture(made(Pooled), (torch.rand(2, 3, 16, 16),))
    frame = gp.Additive(at="input", value=gp.Learnable("normal"), mask=gp.masks.border(inner=8))
    task = gp.compile(graph, gp.Program([frame], align=gp.LinearHead(4, at="features")))
    batches = [(some(8, 3, 16, 16, seed=n), classes(8, 4, n)) for n in range(10)] * 10
    require_equal_curves(
        task, batches, functional.cross_entropy, gp.SGD(0.05), tmp_path / "step.onnx"
    )


def test_a_vision_transformer_with_deep_prompts(tmp_path: Path) -> None:
    case = zoo.LIBRARIES["torchvision-vit"]
    graph = gp.capture(case.model(), *case.call(2))
    program = gp.Program(gp.methods.vpt_deep(3), align=gp.LinearHead(4, at="features"))
    task = gp.compile(graph, program)
    batches = [(some(4, 3, 32, 32, seed=n), classes(4, 4, n)) for n in range(10)] * 10
    optimizer = gp.AdamW(1e-2, weight_decay=0.1, clip=1.0)
    require_equal_curves(task, batches, functional.cross_entropy, optimizer, tmp_path / "step.onnx")


@pytest.mark.parametrize("name", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def test_a_language_model_with_a_soft_prompt_and_a_prefix(name: str, tmp_path: Path) -> None:
    _, graph = memory_models.decoder(name)
    prompt = gp.Concatenative(at="tokens", length=4, value=gp.Learnable("normal", 0.1))
    prefix = gp.Prefix(length=3)
    task = gp.compile(graph, gp.Program([prompt, prefix]))
    batches = []
    for number in range(STEPS):
        length = 6 + number % 4
        words, seen = ids(3, length, number % 7), torch.ones(3, length, dtype=torch.int64)
        seen[0, -2:] = 0
        batches.append((words, seen, words.masked_fill(seen == 0, -100)))
    trainer = require_equal_curves(
        task,
        batches,
        gp.losses.CausalLM(task),
        gp.Adam(1e-2),
        tmp_path / "step.onnx",
        logits=False,
    )
    assert trainer.outputs == {}


@pytest.mark.slow
def test_a_bert_that_classifies(tmp_path: Path) -> None:
    _, graph = memory_models.encoder()
    prompt = gp.Concatenative(at="tokens", length=4, value=gp.Learnable("normal", 0.1), offset=1)
    task = gp.compile(graph, gp.Program([prompt], align=gp.LinearHead(3, at="features")))
    batches = []
    for number in range(STEPS):
        length = 5 + number % 5
        seen = torch.ones(4, length, dtype=torch.int64)
        seen[1, -2:] = 0
        batches.append((ids(4, length, number % 7), seen, classes(4, 3, number % 7)))
    require_equal_curves(
        task, batches, functional.cross_entropy, gp.Adam(1e-2), tmp_path / "step.onnx"
    )


@pytest.mark.slow
def test_an_audio_encoder(tmp_path: Path) -> None:
    graph = gp.capture(
        made(Heard(wav2vec())), (some(2, 200),), dynamic_axes={"input_values": {0: "batch", 1: "T"}}
    )
    noise = gp.Additive(at="encoder.feature_projection:out[0]", value=gp.Learnable(shape=(32,)))
    task = gp.compile(graph, gp.Program([noise], align=gp.LinearHead(3, at="features")))
    batches = [(some(3, 200 + 6 * (n % 3), seed=n), classes(3, 3, n)) for n in range(10)] * 10
    require_equal_curves(
        task, batches, functional.cross_entropy, gp.Adam(1e-2), tmp_path / "step.onnx"
    )


def test_a_graph_network_with_a_loss_of_ones_own(tmp_path: Path) -> None:
    axes = {"x": {0: "nodes"}, "edges": {1: "edges"}}
    example = (some(6, 5), torch.randint(6, (2, 9)))
    graph = gp.capture(made(Messages), example, dynamic_axes=axes)
    task = gp.compile(
        graph, gp.Program([gp.Additive(at="input:x", value=gp.Learnable(shape=(5,)))])
    )

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=0.1)

    batches = []
    for number in range(STEPS):
        nodes = 5 + number % 6
        generator = torch.Generator().manual_seed(number % 8)
        edges = torch.randint(nodes, (2, 12 + number % 3), generator=generator)
        batches.append((some(nodes, 5, seed=number % 8), edges, classes(nodes, 3, number % 8)))
    require_equal_curves(
        task,
        batches,
        loss,
        gp.Adam(1e-2),
        tmp_path / "step.onnx",
        inputs=batches[0][:2],
        labels=batches[0][2],
    )


def test_a_regression_in_float64(tmp_path: Path) -> None:
    layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    graph = gp.capture(made(layers), (some(2, 6).double(),))
    task = gp.compile(graph, gp.Program([gp.Additive(at="input", value=gp.Learnable("normal"))]))
    batches = [(some(5, 6, seed=n).double(), some(5, 2, seed=n + 50).double()) for n in range(50)]
    path = tmp_path / "step.onnx"
    report = gp.backends.onnxruntime.export_training(task, path, loss="mse", tolerance=1e-6)
    assert report.max_absolute < 1e-7
    require_equal_curves(
        task,
        batches * 2,
        functional.mse_loss,
        gp.SGD(0.02, momentum=0.5),
        path,
        inputs=batches[0][:1],
        labels=batches[0][1],
    )
