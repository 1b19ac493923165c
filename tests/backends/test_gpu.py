"""What runs on a GPU gives what runs on the processor: in PyTorch, and in ONNX Runtime."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import graphprog as gp
from graphprog.backends.onnx.quantize import quantize
from graphprog.backends.onnxruntime import Decoder, Session
from graphprog.backends.onnxruntime.io_binding import IOBinding
from tests.models.decoder_models import END, decoder, ids_of
from tests.models.deployed_tasks import BranchedCnn, image_graph, image_program, image_task

pytestmark = [pytest.mark.gpu, pytest.mark.xdist_group("gpu")]

needs_provider = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="this build of ONNX Runtime has no CUDA",
)


def _images(rows: int = 8) -> torch.Tensor:
    return torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    graph = image_graph()
    for mode in ("folded", "overridable"):
        gp.backends.onnx.export(image_task(graph), folder / f"{mode}.onnx", program=mode)
    gp.save(image_task(graph, seed=1), folder / "other.safetensors")
    return folder


def test_a_model_is_captured_and_reprogrammed_on_the_gpu() -> None:
    torch.manual_seed(0)
    model = BranchedCnn().eval()
    values = {}
    for device in ("cpu", "cuda"):
        graph = gp.capture(model.to(device), (torch.rand(2, 3, 16, 16, device=device),))
        task = gp.compile(graph, image_program(gp.LinearHead(5)), seed=0).to(device)
        logits = task(_images().to(device))
        assert logits.device.type == device
        labels = torch.arange(8, device=device) % 5
        torch.nn.functional.cross_entropy(logits, labels).backward()
        gradients = [p.grad for name, p in task.named_parameters() if name.startswith("program.")]
        values[device] = [logits.detach().cpu(), *(gradient.cpu() for gradient in gradients)]
    for one, other in zip(values["cpu"], values["cuda"], strict=True):
        assert torch.allclose(one, other, atol=1e-3)


def test_a_task_on_the_gpu_is_exported_as_one_on_the_processor(tmp_path: Path) -> None:
    task = image_task(image_graph())
    expected = task(_images()).detach().numpy()
    gp.backends.onnx.export(task.to("cuda"), tmp_path / "task.onnx")
    found = Session(tmp_path / "task.onnx", "cpu").run(_images())
    assert np.allclose(found, expected, atol=1e-3)


@needs_provider
@pytest.mark.parametrize("mode", ["folded", "overridable"])
def test_the_provider_agrees_with_the_processor(folder: Path, mode: str) -> None:
    path = folder / f"{mode}.onnx"
    expected = Session(path, "cpu").run(_images())
    session = Session(path, "cuda")
    assert session.providers[0] == "CUDAExecutionProvider"
    assert np.allclose(session.run(_images().cuda()), expected, atol=1e-3)


@needs_provider
def test_nothing_leaves_the_gpu(folder: Path) -> None:
    path, other = folder / "overridable.onnx", folder / "other.safetensors"
    expected = Session(path, "cpu").run(_images(), program=other)
    session = Session(path, "cuda")
    bound = IOBinding(session, other)
    images = _images().cuda()
    (found,) = bound.run(images)
    assert found.device.type == bound.device.type == "cuda"
    assert np.allclose(found.cpu(), expected, atol=1e-3)
    seconds = {}
    for name, run in (
        ("bound", lambda: bound.run(images)),
        ("copied", lambda: session.run(images, program=other)),
    ):
        start = time.perf_counter()
        for _ in range(50):
            run()
        torch.cuda.synchronize()
        seconds[name] = (time.perf_counter() - start) / 50
    print(f"{torch.cuda.get_device_name()}: {seconds}")  # figures, with the name of the GPU


@needs_provider
def test_half_precision_on_the_gpu(folder: Path, tmp_path: Path) -> None:
    report = quantize(
        folder / "folded.onnx",
        tmp_path / "half.onnx",
        "float16",
        inputs=(_images(),),
        providers="cuda",
    )
    assert report.max_relative < 0.05
    assert report.label_agreement > 0.8


@needs_provider
def test_a_writer_on_the_gpu_writes_the_same(tmp_path: Path) -> None:
    _, graph = decoder("llama")
    gp.backends.onnx.export_decoder(graph, tmp_path / "writer.onnx")
    ids = ids_of(2, 6)
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    texts = [
        gp.generate(
            Decoder(tmp_path / "writer.onnx", providers=provider),
            call,
            max_new_tokens=8,
            ends=[END],
        )
        for provider in ("cpu", "cuda")
    ]
    assert [text.ids for text in texts[0]] == [text.ids for text in texts[1]]
