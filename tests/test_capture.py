from __future__ import annotations

import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.utils._pytree import tree_flatten

import graphprog as gp
from graphprog.errors import CaptureError, DataError, FileError
from graphprog.passes.functionalise import mutates
from graphprog.passes.verify import verify
from tests.corner_models import ResidualNet, Tied, plain_cnn
from tests.zoo import CASES, captured, cases


def equal(left: Any, right: Any) -> bool:
    (mine, tree), (theirs, other) = tree_flatten(left), tree_flatten(right)
    return tree == other and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(mine, theirs, strict=True)
    )


@pytest.mark.parametrize("name", cases(CASES))
def test_a_graph_is_its_model_bit_for_bit_at_any_batch_size(name: str) -> None:
    model, graph = captured(name)
    for batch in (1, 2, 5):
        args, kwargs = CASES[name].call(batch)
        with torch.no_grad():
            assert equal(graph(*args, **kwargs), model(*args, **kwargs)), batch
    assert not [node for node in graph.code.nodes if mutates(node)]
    verify(graph, graph)


@pytest.mark.parametrize("name", cases(["transformer", "bert", "gpt2", "llama"]))
def test_a_graph_is_its_model_at_any_length(name: str) -> None:
    model, graph = captured(name)
    for length in (3, 11):
        ids = torch.randint(1, 90, (4, length))
        mask = torch.ones_like(ids)
        mask[1, 2:] = 0
        _, kwargs = CASES[name].call(2)
        kwargs |= {"input_ids": ids, "attention_mask": mask}
        with torch.no_grad():
            assert equal(graph(**kwargs), model(**kwargs))


def small() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return ResidualNet().eval(), torch.randn(3, 3, 16, 16)


def exported(model: nn.Module, x: torch.Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def test_every_source_of_a_graph(tmp_path: Path) -> None:
    model, x = small()
    program = exported(model, x)
    torch.export.save(program, tmp_path / "residual_net.pt2")
    sources = {
        "module": gp.capture(model, (x,)),
        "exported": gp.capture(program),
        "file": gp.capture(tmp_path / "residual_net.pt2"),
        "text path": gp.capture(str(tmp_path / "residual_net.pt2")),
        "traced": gp.capture(fx.symbolic_trace(model), (x,)),
        "unlifted": gp.capture(program.module(), (x,)),
    }
    wide = torch.randn(5, 3, 16, 16)
    for name, graph in sources.items():
        assert equal(graph(wide), model(wide)), name
        assert graph.aliases["features"], name
        assert graph.weight_hash() == sources["module"].weight_hash(), name
    assert sources["file"].name == "residual_net"
    for name in ("exported", "file"):
        assert "hidden[2]" in sources[name].aliases, name


def test_the_model_is_left_as_it_was_found() -> None:
    model, x = small()
    model.train()
    model.blocks[1].eval()
    model.head.weight.requires_grad_(False)
    flags = [module.training for module in model.modules()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    graph = gp.capture(model, (x,))
    gp.compile(graph, gp.Program([gp.Additive()])).train()
    assert flags == [module.training for module in model.modules()]
    assert gradients == [parameter.requires_grad for parameter in model.parameters()]
    assert all(p.requires_grad is False for p in graph.weights.source.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = plain_cnn()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.part(x)
        if y.sum() > 0:
            return y
        return -y


def test_a_model_that_cannot_be_captured_is_explained_and_left_alone() -> None:
    model = Branching().train()
    with pytest.raises(CaptureError) as caught:
        gp.capture(model, (torch.randn(2, 3, 8, 8),))
    text = str(caught.value)
    assert f"at {__file__}" in text
    assert "if y.sum() > 0:" in text
    assert "non-strict tracing: " in text
    assert "strict tracing: Unsupported" in text
    assert "use torch.where" in text
    assert caught.value.__cause__ is not None
    assert all(module.training for module in model.modules())
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
    assert not any(any(pair) for pair in hooks)


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(8, -1)


def test_a_fixed_batch_is_refused_unless_asked_for() -> None:
    x = torch.randn(8, 4)
    with pytest.raises(CaptureError, match=r"(?s)fixed the batch size: x has shape \(8, 4\).*view"):
        gp.capture(FixedBatch(), (x,))
    with pytest.raises(CaptureError, match=r"(?s)test_capture.py:\d+: return x.view\(8, -1\)"):
        gp.capture(FixedBatch(), (x,), dynamic_axes={"x": {0: "batch"}})
    assert equal(gp.capture(FixedBatch(), (x,), dynamic_axes={"x": {}})(x), x)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"y": {0: "batch"}}, "names an input 'y'; the inputs are x"),
        ({"x": {4: "batch"}}, r"shape \(3, 3, 16, 16\), no axis 4"),
        ({"x": {-1: "batch"}}, "no axis -1"),
    ],
)
def test_dynamic_axes_are_checked(axes: Any, message: str) -> None:
    model, x = small()
    with pytest.raises(CaptureError, match=message):
        gp.capture(model, (x,), dynamic_axes=axes)


def test_an_example_of_one_is_widened() -> None:
    model, x = small()
    graph = gp.capture(model, (x[:1],))
    assert graph.interfaces()["input:x"].type_text == "f32[B,3,16,16]"
    assert equal(graph(x), model(x))


def test_axes_may_be_named_and_vary_in_size() -> None:
    model = plain_cnn().eval()
    axes = {"input": {0: "batch", 2: "height", 3: "width"}}
    graph = gp.capture(model, (torch.randn(2, 3, 16, 16),), dynamic_axes=axes)
    assert graph.interfaces()["input:input"].type_text == "f32[B,3,H,W]"
    x = torch.randn(3, 3, 12, 22)
    assert equal(graph(x), model(x))
    program = gp.Program([gp.Place(shape=(3, 8, 8))])
    with pytest.raises(gp.errors.ProgramError, match="varies in more than the batch"):
        gp.compile(graph, program)


class Call(nn.Module):
    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        return ids.float() * mask + (0 if bias is None else bias)


def test_keywords_may_come_in_any_order() -> None:
    ids, mask, bias = torch.ones(2, 5).long(), torch.rand(2, 5), torch.rand(5)
    axes = {name: {0: "batch"} for name in ("ids", "mask")}
    graph = gp.capture(Call(), (ids,), {"bias": bias, "mask": mask}, axes)
    ids, mask = torch.ones(4, 5).long(), torch.rand(4, 5)
    assert equal(graph(ids, mask=mask, bias=bias), Call()(ids, mask, bias))
    assert equal(graph(ids, bias=bias, mask=mask), Call()(ids, mask, bias))
    with pytest.raises(DataError, match=r"takes \(ids, bias=, mask=\)"):
        graph(ids, mask, bias)


def test_one_tensor_given_twice_is_two_inputs() -> None:
    x = torch.randn(2, 5)
    graph = gp.capture(Call(), (x, x))
    left, right = torch.randn(3, 5), torch.randn(3, 5)
    assert equal(graph(left, right), left * right)


def test_constants_are_fixed_and_said_so() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, factor: float, mode: str = "a") -> torch.Tensor:
            return x * factor if mode == "a" else x

    graph = gp.capture(Scaled(), (torch.randn(2, 3), 2.0), {"mode": "a"})
    x = torch.randn(3, 3)
    assert equal(graph(x, 2.0, mode="a"), x * 2)
    with pytest.raises(DataError, match=r"was 2\.0 at capture and is 3\.0 now"):
        graph(x, 3.0, mode="a")


class OnlyStrict(nn.Module):
    """Tracing with fake tensors fails on NumPy; the strict tracer knows it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.second(y + torch.from_numpy(x.numpy() * 2))


def test_the_second_tracer_names_calls_like_the_first() -> None:
    model = OnlyStrict().eval()
    graph = gp.capture(model, (torch.randn(2, 4),))
    assert set(graph.sites) >= {"first:in", "first:out", "second:in", "second:out"}
    x = torch.randn(3, 4)
    assert equal(graph(x), model(x))


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x + self.count


class Controlled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))


class Unnamed(nn.Module):
    def forward(self, x: torch.Tensor, **others: torch.Tensor) -> torch.Tensor:
        return x + others["y"]


class Autocast(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return x @ x.T


X = torch.randn(2, 3)


@pytest.mark.parametrize(
    ("model", "args", "kwargs", "message"),
    [
        (Stateful(), (X,), {}, "writes to its own tensor count"),
        (Controlled(), (X,), {}, r"(?s)control flow.*torch\.where"),
        (Unnamed(), (X,), {"y": X}, "does not name y"),
        (Autocast(), (X,), {}, "under autocast"),
        (Call(), (X,), {}, r"(?s)cannot be called with the example: missing.*'mask'"),
        (Call(), (X, X, X, X), {}, "too many positional arguments"),
        (Call(), (1, 2), {}, "needs example tensors"),
        (lambda x: x, (X,), {}, "not function"),
    ],
)
def test_what_cannot_be_captured_is_refused(
    model: Any, args: Any, kwargs: Any, message: str
) -> None:
    with pytest.raises(CaptureError, match=message):
        gp.capture(model, args, kwargs)


def test_a_program_exported_in_train_mode_is_refused() -> None:
    program = exported(nn.BatchNorm1d(3).train(), X)
    with pytest.raises(CaptureError, match=r"(?s)num_batches_tracked.*eval mode"):
        gp.capture(program)
    with pytest.raises(CaptureError, match="fixed when it was exported"):
        gp.capture(exported(nn.Linear(3, 3), X), dynamic_axes={"input": {0: "batch"}})


class Payload:
    """Pickles as a call that makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def repacked(source: Path, target: Path, change: Any) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def test_broken_and_hostile_files_are_refused_and_nothing_runs(tmp_path: Path) -> None:
    good = tmp_path / "good.pt2"
    torch.export.save(exported(*small()), good)
    run = tmp_path / "it-ran"

    def pickled(name: str, data: bytes) -> bytes:
        return pickle.dumps(Payload(run)) if name.endswith("sample_inputs/model.pt") else data

    def sized(name: str, data: bytes) -> bytes:
        code = f"__import__('pathlib').Path({str(run)!r}).touch()".replace("'", '\\"')
        marks = b"Symbol('s", f"{code} + Symbol('s".encode()
        return data.replace(*marks) if name.endswith("models/model.json") else data

    files = {
        "absent": tmp_path / "absent.pt2",
        "empty": tmp_path / "empty.pt2",
        "cut": tmp_path / "cut.pt2",
        "pickle": repacked(good, tmp_path / "pickle.pt2", pickled),
        "code": repacked(good, tmp_path / "code.pt2", sized),
    }
    files["empty"].write_bytes(b"")
    files["cut"].write_bytes(good.read_bytes()[:-200])
    for name, path in files.items():
        with pytest.raises(FileError, match=path.name) as caught:
            gp.capture(path)
        assert (name == "code") == ("is not a size" in str(caught.value))
        assert not run.exists(), name
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in __import__("os").environ
    assert gp.capture(good).placeholders


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
