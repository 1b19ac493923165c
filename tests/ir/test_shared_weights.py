from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import graphprog as gp
from tests.models.networks.corner import Tied
from tests.models.zoo import captured, cases


@pytest.mark.parametrize("name", cases(["residual", "tied", "lstm", "torchvision-resnet18"]))
def test_weights_are_the_models_own_memory(name: str) -> None:
    model, graph = captured(name)
    own = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    task = gp.compile(graph, gp.Program([gp.Additive(at="features")]))
    for holder in (graph.weights.source, task.source, task.graph.module.source):
        found = {
            **dict(holder.named_parameters(remove_duplicate=False)),
            **dict(holder.named_buffers(remove_duplicate=False)),
        }
        assert found
        for key, tensor in found.items():
            assert tensor.data_ptr() == own[key].data_ptr(), key


def test_tied_weights_stay_tied() -> None:
    model = Tied().eval()
    graph = gp.capture(model, (torch.randint(0, 99, (2, 4)),))
    source = list(graph.weights.source.parameters())
    assert len(source) == len({parameter.data_ptr() for parameter in source})


MEMORY = """
import resource, torch, graphprog as gp
from torch import nn

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def model(width):
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(6))).eval()

gp.compile(gp.capture(model(8), (torch.randn(2, 8),)), gp.Program([gp.Additive()]))  # warm up
big = model(2048)
size = sum(p.nbytes for p in big.parameters())
before = resident()
graph = gp.capture(big, (torch.randn(2, 2048),))
tasks = [gp.compile(graph, gp.Program([gp.Additive(at="hidden[*]")])) for _ in range(3)]
print(size, resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_capturing_and_compiling_copy_no_weights() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=300
    )
    size, growth = map(int, done.stdout.split())
    assert size > 100e6
    assert growth < 0.1 * size
