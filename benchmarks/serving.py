"""Many programs on one ONNX Runtime session, and inference beside eager PyTorch; ratios of one run.

    python -m benchmarks.serving [programs] [full | small]

1. That many programs (pixels and a head) on a source of the size of ViT-B/16 with random weights:
memory, the time to switch, and batches whose rows have different programs beside batches of one
program. 2. The same source with three kinds of programs: a graph for each and the weights once,
each graph with a copy arranged for speed, or all reading the same memory. 3. Inference of
EfficientNet-Lite0 with a border, ViT-B/16 with 10 deep tokens, and GPT-2 small with 20 tokens:
ONNX Runtime, with the source in float32 and in int8, beside the same task in eager PyTorch.
0 programs measure inference alone; ``small`` takes small models, to try the script. The machine
decides the seconds; what counts are the ratios.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import graphprog as gp
from benchmarks.turns import efficientnet_lite0, machine, side_by_side, timed

ROWS, SWITCHES = 8, 200


def main() -> None:
    """Measure, and print three tables."""
    programs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    small = "small" in sys.argv[2:]
    print(machine())
    torch.manual_seed(0)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        graph = vision(small)
        if programs:
            scale(graph, programs, Path(folder))
            kinds(graph, Path(folder))
        inference(graph, small, Path(folder))


def vision(small: bool) -> gp.Graph:
    """A source of the size of ViT-B/16."""
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3}
    config = transformers.ViTConfig(
        num_labels=1000, **(sizes | {"num_attention_heads": 2, "image_size": 64} if small else {})
    )
    model = transformers.ViTForImageClassification(config).eval().requires_grad_(False)
    images = torch.rand(2, 3, config.image_size, config.image_size)
    return gp.capture(model, (images,))


def pixels(graph: gp.Graph) -> gp.Program:
    """A border around the image, and a head on features."""
    side = int(graph.placeholders[0].meta["val"].shape[-1])
    border = gp.Additive(mask=gp.masks.border(inner=side * 3 // 4), value=gp.Learnable("normal"))
    return gp.Program([border], align=gp.LinearHead(10))


def scale(graph: gp.Graph, count: int, folder: Path) -> None:
    """Memory, switching, and mixed batches."""
    task = gp.compile(graph, pixels(graph))
    for mode in ("per_row", "overridable"):
        gp.backends.onnx.export(task, folder / f"{mode}.onnx", program=mode)
    images = task.input_example(ROWS)[0].numpy()
    session = gp.backends.onnxruntime.Session(folder / "per_row.onnx", providers="cpu")
    file = folder / "program.safetensors"
    gp.save(task, file)
    for name in map(str, range(ROWS)):
        session.add(name, file)
    for rows in (["0"] * ROWS, list(session.list())):
        session.run(images, program=rows)
    before, added = resident(), 0
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        state = {
            name: torch.randn(value.shape, generator=generator)
            for name, value in task.program_state().items()
        }
        task.load_program_state(state)
        gp.save(task, file)
        session.add(f"p{number}", file)
        added += sum(value.nbytes for value in state.values())
    session.run(images, program="p0")
    grown = resident() - before
    names = itertools.cycle(f"p{number * 7919 % count}" for number in range(count))
    switches = [timed(lambda: fed(session, next(names), images)) for _ in range(SWITCHES)]
    plain = gp.backends.onnxruntime.Session(folder / "overridable.onnx", providers="cpu")
    plain.add("p", file)
    times = side_by_side(
        {
            "one program, overridable file": lambda: plain.run(images, program="p"),
            "one program, per row": lambda: session.run(images, program="p0"),
            "another program each run, per row": lambda: session.run(images, program=next(names)),
            f"{ROWS} programs in a batch, per row": lambda: session.run(
                images, program=[next(names) for _ in range(ROWS)]
            ),
        }
    )
    base = times["one program, overridable file"]
    print(f"\n{count} programs of {added / count / 1e3:.0f} kB on {graph.name}, batch {ROWS}")
    print(
        f"- memory: source {before / 2**20:.0f} MiB, programs {added / 2**20:.0f} MiB; it grew by"
    )
    print(f"  {grown / 2**20:.0f} MiB, {grown / added:.3f} x the programs")
    print(f"- switching: {statistics.median(switches) * 1e3:.3f} ms, median of {SWITCHES}")
    print("| | ms a batch | throughput / one program, overridable |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {seconds * 1e3:.1f} | {base / seconds:.2f} |")


def fed(session: Any, name: str, images: np.ndarray) -> object:
    """What it takes to run another program: everything before ONNX Runtime is called."""
    return session.per_row_inputs([session.resolve(name)] * len(images))


def kinds(graph: gp.Graph, folder: Path) -> None:
    """Three kinds of programs on one source."""
    slots = {
        "pixels": pixels(graph),
        "tokens": gp.Program(gp.methods.vpt_deep(10), align=gp.LinearHead(10)),
        "prefix": gp.Program([gp.Prefix(length=10)], align=gp.LinearHead(10)),
    }
    gp.backends.onnx.export_multi_graph(graph, folder / "slots", slots)
    for name, program in slots.items():
        gp.save(gp.compile(graph, program), folder / f"{name}.safetensors")
    data = sum(path.stat().st_size for path in (folder / "slots").glob("*.data"))
    graphs = sum(path.stat().st_size for path in (folder / "slots").glob("*.onnx"))
    print(f"\n{len(slots)} kinds: weights {data / 2**20:.0f} MiB, graphs {graphs / 2**20:.1f} MiB")
    print("| weights in memory | MiB, one graph | all | ms a batch: " + ", ".join(slots) + " |")
    print("|---|---|---|---|")
    images = torch.rand(ROWS, *graph.placeholders[0].meta["val"].shape[1:]).numpy()
    for share in (False, True):
        served = gp.backends.onnxruntime.MultiSession(
            folder / "slots", providers="cpu", share=share
        )
        for name in slots:
            served.add(name, folder / f"{name}.safetensors")
        before, sizes = resident(), []
        for name in slots:
            served.run(images, program=name)
            sizes.append((resident() - before) / 2**20)
        calls = {name: lambda n=name, s=served: s.run(images, program=n) for name in slots}
        times = ", ".join(f"{seconds * 1e3:.0f}" for seconds in side_by_side(calls).values())
        kind = "the same for all" if share else "arranged by each"
        print(f"| {kind} | {sizes[0]:.0f} | {sizes[-1]:.0f} | {times} |")


def inference(graph: gp.Graph, small: bool, folder: Path) -> None:
    """ONNX Runtime beside eager PyTorch."""
    picture = torch.rand(2, 3, 224, 224)
    efficientnet = None if small else gp.capture(efficientnet_lite0(), (picture,))
    language = decoder(small)
    deep = gp.Program(gp.methods.vpt_deep(10), align=gp.LinearHead(10))
    soft = gp.Program(gp.methods.prompt_tuning(20), align=gp.LastToken())
    tasks = {
        f"{graph.name} + 10 deep tokens": (gp.compile(graph, deep), None),
        f"{language.name} + 20 tokens, texts of 108": (gp.compile(language, soft), texts()),
    }
    if efficientnet is not None:
        tasks["EfficientNet-Lite0 + border"] = (
            gp.compile(efficientnet, pixels(efficientnet)),
            None,
        )
    print("\n| inference | rows | eager ms | eager / float32 | eager / int8 | int8 off by |")
    print("|---|---|---|---|---|---|")
    for (name, (task, given)), rows in itertools.product(tasks.items(), (1, ROWS)):
        inputs = task.input_example(rows) if given is None else (given[:rows],)
        arrays = [value.numpy() for value in inputs]
        files = folder / "float32.onnx", folder / "int8.onnx"
        gp.backends.onnx.export(task, files[0])
        off = gp.backends.onnx.quantize(*files, "int8", inputs=arrays).max_relative
        calls: dict[str, Any] = {"eager": lambda t=task, i=inputs: t(*i)}
        for file in files:
            session = gp.backends.onnxruntime.Session(file, providers="cpu")
            calls[file.stem] = lambda s=session, a=arrays: s.run(*a)
        times = side_by_side(calls)
        ratios = " | ".join(f"{times['eager'] / times[file.stem]:.2f}" for file in files)
        print(f"| {name} | {rows} | {times['eager'] * 1e3:.1f} | {ratios} | {off:.2g} |")


def decoder(small: bool) -> gp.Graph:
    """A language model of the size of GPT-2 small."""
    sizes = {"n_layer": 2, "n_embd": 64, "n_head": 2} if small else {}
    config = transformers.GPT2Config(attn_implementation="sdpa", use_cache=False, **sizes)
    model = transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)
    return gp.capture(model, (texts()[:2, :9],), None, {"input_ids": {0: "batch", 1: "sequence"}})


def texts() -> torch.Tensor:
    """Token ids."""
    return torch.randint(50_000, (ROWS, 108), generator=torch.Generator().manual_seed(1))


def resident() -> int:
    """Bytes of memory that this process holds now, after giving back what it has no use for."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
