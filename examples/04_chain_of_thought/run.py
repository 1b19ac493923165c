"""A chain-of-thought program beats a direct one on a frozen model that can answer either way.

    python examples/04_chain_of_thought/run.py
    python examples/04_chain_of_thought/run.py --model hf:gpt2

The model is trained by ``train.py`` where it is not there yet, or is the one that is named. The
table and the picture go into ``outputs/`` beside this script.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import arithmetic
import pictures
import train
from rich.progress import track
from rich.table import Table

import graphprog as gp

sys.path.append(str(Path(__file__).parent.parent))
import language_models
import reporting

OUTPUTS = Path(__file__).parent / "outputs"
SEEDS = (0, 1, 2)
PROBLEMS = 25
SAMPLES = 9
TEMPERATURE = 0.7
LONGEST = 100


@dataclasses.dataclass(frozen=True)
class Method:
    """A program, and how its texts are written.

    Attributes:
        name: for the table.
        parts: text of the program.
        samples: texts that are drawn for each problem and vote; 1 for the best tokens alone.
    """

    name: str
    parts: tuple[gp.Demonstrations | gp.Instruction, ...]
    samples: int = 1

    @property
    def program(self) -> gp.Program:
        """The text, and how answers are read."""
        return gp.Program(self.parts, align=gp.Parse(arithmetic.ANSWER, pick="last", type=int))


@dataclasses.dataclass(frozen=True)
class Row:
    """What a method reaches on the problems of one seed with so many operations.

    Attributes:
        method: name.
        length: number of operations of each problem.
        seed: of demonstrations, problems and draws.
        accuracy: share of right answers.
        unparsed: share of texts without an answer.
        tokens: mean number of tokens of a text.
    """

    method: str
    length: int
    seed: int
    accuracy: float
    unparsed: float
    tokens: float


def methods(seed: int) -> list[Method]:
    """Both styles with the same demonstrations, and what makes the model think without any."""
    generator = random.Random(seed)
    sources = (arithmetic.problems(generator, length, held_out=False) for length in (3, 5))
    shown = [next(source) for source in sources]
    nothing = arithmetic.demonstrations([], steps=False)
    direct = arithmetic.demonstrations(shown, steps=False)
    worked = arithmetic.demonstrations(shown, steps=True)
    trigger = gp.Instruction(arithmetic.TRIGGER, place="after", separator=" ")
    return [
        Method("zero-shot", (nothing,)),
        Method("direct", (direct,)),
        Method("trigger", (nothing, trigger)),
        Method("chain of thought", (worked,)),
        Method("self-consistency", (worked,), SAMPLES),
    ]


def measure(
    graph: gp.Graph, method: Method, lengths: Sequence[int], each: int, seed: int
) -> list[Row]:
    """A row for every number of operations, of problems that were kept out of training."""
    writer = gp.with_kv_cache(gp.compile(graph, method.program))
    drawn = {"temperature": TEMPERATURE, "seed": seed, "num_return_sequences": method.samples}
    rows = []
    for length in track(lengths, f"seed {seed}, {method.name}"):
        asked = problems(length, each, seed)
        texts = gp.generate(
            writer,
            [one.question for one in asked],
            max_new_tokens=LONGEST,
            stop=[arithmetic.SEPARATOR],
            progress=False,
            **(drawn if method.samples > 1 else {}),
        )
        answers = [text.answer for text in texts]
        right = [
            gp.text.vote(answers[k * method.samples :][: method.samples]).answer == one.result
            for k, one in enumerate(asked)
        ]
        unparsed = gp.text.unparsed_share(answers)
        tokens = statistics.mean(len(text.ids) for text in texts)
        rows.append(Row(method.name, length, seed, statistics.fmean(right), unparsed, tokens))
    return rows


def problems(length: int, each: int, seed: int) -> list[arithmetic.Problem]:
    """Different problems of the test, the same for all methods."""
    source = arithmetic.problems(random.Random(f"{seed} {length}"), length, held_out=True)
    found: set[arithmetic.Problem] = set()
    while len(found) < each:
        found.add(next(source))
    return sorted(found, key=lambda one: one.question)


def table(rows: Sequence[Row]) -> Table:
    """Means over seeds and numbers of operations, with the lowest and the highest seed."""
    drawn = Table(title="calculations in several steps, one frozen model")
    longest = max(arithmetic.LENGTHS)
    names = ("program", f"up to {longest} operations", "more", "not parsed", "tokens written")
    for name in names:
        drawn.add_column(name, justify="left" if name == "program" else "right")
    for name in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == name]
        drawn.add_row(
            name,
            span([row for row in own if row.length <= longest]),
            span([row for row in own if row.length > longest]),
            f"{statistics.mean(row.unparsed for row in own):.1%}",
            f"{statistics.mean(row.tokens for row in own):.0f}",
        )
    return drawn


def span(rows: Sequence[Row]) -> str:
    """Mean accuracy, with the lowest and the highest of a seed; a dash for none."""
    seeds = {row.seed for row in rows}
    means = [statistics.mean(r.accuracy for r in rows if r.seed == seed) for seed in seeds]
    return reporting.span(means)


def main(
    model: str | None = None,
    lengths: Sequence[int] = arithmetic.LENGTHS + arithmetic.LONGER,
    each: int = PROBLEMS,
    seeds: Sequence[int] = SEEDS,
    outputs: Path = OUTPUTS,
) -> list[Row]:
    """Run everything; the table is also written to ``table.txt``."""
    if model is None and not train.FOLDER.exists():
        train.main()
    outputs.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    graph = language_models.captured(model or train.FOLDER)
    with reporting.frozen(graph):
        rows = [
            row
            for seed in seeds
            for method in methods(seed)
            for row in measure(graph, method, lengths, each, seed)
        ]
    pictures.draw(rows, outputs / "picture.png")
    note = (
        f"{model or 'the model of train.py'}: frozen, hash unchanged; seeds {list(seeds)}, each "
        f"{each} problems of {', '.join(map(str, lengths))} operations; "
        f"{time.perf_counter() - start:.0f} s; files in {outputs}"
    )
    reporting.report(table(rows), note, outputs)
    return rows


if __name__ == "__main__":
    main(reporting.model_argument(__doc__))
