"""A frozen sentence encoder tells from a docstring which library it comes from.

    python examples/02_prompt_a_text_encoder/run.py

The table goes to the terminal and, with the trained programs, the ONNX file and the picture, into
``outputs/`` beside this script.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import data
import encoder
import pictures
import programs
import torch
from rich.table import Table
from torch import nn

import graphprog as gp

sys.path.append(str(Path(__file__).parent.parent))
import reporting

OUTPUTS = Path(__file__).parent / "outputs"
Tensors = tuple[torch.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    method: str
    trained: int
    validation: float
    test: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Texts:
    """The splits as tensors: ids and mask int64 [N, S], labels int64 [N]."""

    train: Tensors
    validation: Tensors
    test: Tensors


def read(tokenizer: encoder.Tokenizer, sizes: Mapping[str, int]) -> Texts:
    """The docstrings of all splits, in tokens."""
    splits = data.docstrings(sizes)
    return Texts(
        **{
            name: (
                *tokenizer([one.text for one in some]),
                torch.tensor([one.label for one in some]),
            )
            for name, some in splits.items()
        }
    )


def features(task: gp.ReprogrammedModel, texts: Tensors) -> torch.Tensor:
    """What the head reads, [N, F]."""
    ids, mask, _ = texts
    with torch.no_grad():
        pairs = zip(ids.split(64), mask.split(64), strict=True)
        return torch.cat([task.both(*pair)[1] for pair in pairs])


def zero_shot(graph: gp.Graph, tokenizer: encoder.Tokenizer, texts: Texts) -> Row:
    """The library whose description is nearest to the docstring; nothing is trained."""
    start = time.perf_counter()
    with torch.no_grad():
        classes = graph(*tokenizer([f"{name}: {about}" for name, about in data.LIBRARIES.items()]))
        scores = []
        for ids, mask, labels in (texts.validation, texts.test):
            found = (graph(ids, mask) @ classes.T).argmax(1)
            scores.append((found == labels).float().mean().item())
    return Row("zero-shot by description", 0, *scores, time.perf_counter() - start)


def linear_head(graph: gp.Graph, texts: Texts, seed: int) -> tuple[gp.ReprogrammedModel, Row]:
    """A head on the frozen features, which are computed once: no text passes the encoder twice."""
    start = time.perf_counter()
    task = gp.compile(graph, gp.Program([], programs.HEAD, programs.CONTRACT), seed)
    train, validation, test = (
        (features(task, some), some[2]) for some in (texts.train, texts.validation, texts.test)
    )
    alone = gp.Program([], gp.LinearHead(len(programs.LABELS)), programs.CONTRACT)
    head = gp.compile(gp.capture(nn.Identity(), train[:1]), alone, seed)
    history = gp.fit(head, train, validation, epochs=20, batch_size=32, lr=0.003, schedule="cosine")
    task.load_program_state(head.program_state())
    accuracy = gp.evaluate(head, test).accuracy
    row = Row(
        "linear head",
        task.trained_parameters(),
        history.best.validation_accuracy or 0.0,
        accuracy,
        time.perf_counter() - start,
    )
    return task, row


def prompt(
    graph: gp.Graph, method: programs.Method, head: gp.ReprogrammedModel, texts: Texts, seed: int
) -> tuple[gp.ReprogrammedModel, Row]:
    """Prompts and head together, the head from where it was trained alone."""
    start = time.perf_counter()
    task = gp.compile(graph, method.program, seed)
    task.load_program_state(task.program_state() | head.program_state())
    history = gp.fit(
        task,
        texts.train,
        texts.validation,
        epochs=method.epochs,
        batch_size=32,
        lr=method.lr,
        schedule="cosine",
        seed=seed,
    )
    row = Row(
        method.name,
        task.trained_parameters(),
        history.best.validation_accuracy or 0.0,
        gp.evaluate(task, texts.test).accuracy,
        time.perf_counter() - start,
    )
    return task, row


def deliver(task: gp.ReprogrammedModel, outputs: Path) -> None:
    """Save, export, and compare at batch sizes and lengths that were not there at capture."""
    gp.save(task, outputs / "docstrings.safetensors")
    print(gp.backends.onnx.export(task, outputs / "docstrings.onnx"))
    session = gp.backends.onnxruntime.Session(outputs / "docstrings.onnx")
    differences = []
    for batch, length in ((1, 3), (5, 17), (3, 64), (32, 100)):
        ids = torch.randint(1000, 30000, (batch, length))
        mask = (torch.arange(length) < torch.randint(1, length + 1, (batch, 1))).long()
        with torch.no_grad():
            expected = task(ids, mask)
        found = torch.as_tensor(session.run(ids, mask))
        differences.append((found - expected).abs().max().item())
        print(f"ONNX Runtime, {batch} texts of {length} tokens: off by {differences[-1]:.1e}")
    if max(differences) > 1e-4:
        raise RuntimeError("ONNX Runtime computes something else")


def table(rows: list[Row], source_parameters: int) -> Table:
    """The rows as a table for the terminal."""
    drawn = Table(title="one frozen MiniLM; which of eight libraries is the docstring from?")
    for name in ("method", "trained", "of source", "validation", "test", "seconds"):
        drawn.add_column(name, justify="left" if name == "method" else "right")
    for row in rows:
        drawn.add_row(
            row.method,
            f"{row.trained:,}",
            f"{row.trained / source_parameters:.2%}",
            f"{row.validation:.1%}",
            f"{row.test:.1%}",
            f"{row.seconds:.0f}",
        )
    return drawn


def main(
    sizes: Mapping[str, int] = data.SIZES,
    epochs: int = 2,
    seed: int = 0,
    outputs: Path = OUTPUTS,
) -> list[Row]:
    """Run everything; the table is also written to ``table.txt``."""
    start = time.perf_counter()
    torch.manual_seed(seed)
    outputs.mkdir(parents=True, exist_ok=True)
    model, tokenizer = encoder.load()
    graph = encoder.capture(model, tokenizer)
    with reporting.frozen(graph):
        texts = read(tokenizer, sizes)
        head, row = linear_head(graph, texts, seed)
        rows, tasks = [zero_shot(graph, tokenizer, texts), row], [head]
        for method in programs.methods(epochs):
            task, row = prompt(graph, method, head, texts, seed)
            tasks.append(task)
            rows.append(row)
    best = max(range(1, len(tasks)), key=lambda number: rows[number + 1].validation)
    deliver(tasks[best], outputs)
    clouds = {
        "the encoder as it is": features(head, texts.test),
        f"under {rows[best + 1].method}": features(tasks[best], texts.test),
    }
    pictures.draw(rows, clouds, texts.test[-1], programs.LABELS, outputs / "picture.png")
    count = sum(parameter.numel() for parameter in graph.weights.source.parameters())
    note = (
        f"source: {count:,} frozen parameters, hash unchanged; seed {seed}; "
        f"{time.perf_counter() - start:.0f} s in all; files in {outputs}"
    )
    reporting.report(table(rows, count), note, outputs)
    return rows


if __name__ == "__main__":
    main()
