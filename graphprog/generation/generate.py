"""Generation: what a model writes behind prompts, whatever runs it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress

from graphprog.analysis.roles import MEANINGS, Roles
from graphprog.compiler.model import Reprogrammed
from graphprog.errors import DataError, ProgramError
from graphprog.generation.batching import Prompts, Rows, batches_of, rows_of
from graphprog.generation.beam_search import Beam, search
from graphprog.generation.decode_loop import write
from graphprog.generation.decoder import Wording
from graphprog.generation.decoder_protocol import Writer
from graphprog.generation.kv_decoder import Uncached, cached, worded
from graphprog.generation.output import Token, Written
from graphprog.generation.sampling import Choice
from graphprog.generation.streaming import Text
from graphprog.ir.graph import Graph


def generate(
    model: Reprogrammed | Graph | Writer,
    prompts: Prompts,
    *,
    length: int = 64,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    samples: int = 1,
    beams: int = 1,
    length_penalty: float = 1.0,
    stop: Sequence[str] = (),
    ends: Sequence[int] | None = None,
    tell: Callable[[Token], None] | None = None,
    parse: Callable[[str], Any] | None = None,
    sides: Mapping[str, str] | None = None,
    cache: bool = True,
    progress: bool | None = None,
) -> list[Written]:
    """Let a model write behind prompts.

    Without ``temperature``, ``top_k``, ``top_p`` and ``seed`` the best token is taken each time.
    Keys and values of what was read are kept (:func:`graphprog.cached`). Prompts of different
    lengths run together where padding in front of them was tried out to change nothing, and one
    length after the other where it does: what is written for a prompt does not depend on the
    others.

    Args:
        model: a task or a graph that returns logits [B, S, V]; what :func:`graphprog.cached` made
            of one, so that it is not derived again; or an ONNX Runtime session that writes,
            :class:`graphprog.backends.onnxruntime.Writer`.
        prompts: texts, or mappings with the fields of the program's template; sequences of token
            ids; or a mapping of input names to tensors, a row for each prompt. An encoder with a
            decoder takes the latter, with the first tokens of the decoder.
        length: most tokens of a text.
        temperature: scores are divided by it.
        top_k: only so many of the best tokens take part in the draw.
        top_p: only the best ones that together have this probability do.
        seed: of the draw. A row is drawn alike whatever else is in the batch.
        samples: how many texts for each prompt, one after the other in the result.
        beams: width of a beam search; 1 for none.
        length_penalty: beams are compared by log-probability over length to this power.
        stop: strings that end a text; they are not part of it.
        ends: ids of tokens that end a text; that of the tokenizer unless given.
        tell: is called with every :class:`Token`, as soon as it is written.
        parse: reads answers in texts; that of the program unless given.
        sides: how inputs go on for a new token: ``present``, ``repeated`` or ``positions``.
        cache: False reads all tokens again for each new one, as models without attention need.
        progress: a bar; on a terminal unless False.

    Returns:
        What was written, ``samples`` for each prompt, in order.

    Raises:
        DataError: prompts do not suit the graph.
        PassError: the model has no cache; says where.
        ProgramError: an option makes no sense, there is no tokenizer, or no logits are returned.
    """
    choice = Choice(temperature, top_k, top_p, seed)
    _check(length, samples, beams, choice, tell)
    if not math.isfinite(length_penalty):
        raise ProgramError(f"length_penalty={length_penalty} is no finite number")
    if isinstance(stop, str) or "" in stop:
        raise ProgramError(f"stop={stop!r} is no sequence of strings", ['stop=["\\n\\n"]'])
    if ends is not None and not isinstance(ends, Collection):
        raise ProgramError(f"ends={ends} is no sequence of ids", [f"ends=[{ends}]"])
    writer = writer_of(model, cache)
    wording = writer.wording
    tokenizer = wording.tokenizer
    if stop and tokenizer is None:
        raise ProgramError(
            "stop strings need a tokenizer", ["gp.capture(model, ..., tokenizer=tokenizer)"]
        )
    if sides:
        writer = _Told(writer, _with_sides(writer.roles, sides))
    rows = rows_of(prompts, writer.roles, wording)
    ended = frozenset(_ends_of(tokenizer) if ends is None else ends)
    texts = [
        Text(number, number // samples, tokenizer, ended, tuple(stop), tell)
        for number in range(len(rows) * samples)
    ]
    with _Bar(progress, len(texts), length) as bar:
        for numbers, inputs in batches_of(rows, writer):
            own = [texts[n * samples + k] for n in numbers for k in range(samples)]
            if beams > 1:
                _search(writer, inputs, own, beams, length_penalty, length, bar.tick)
            else:
                write(writer, inputs, own, choice, length, bar.tick)
            bar.finished(len(own))
    return [text.written(parse or wording.parser) for text in texts]


def _search(
    writer: Writer,
    inputs: Rows,
    texts: Sequence[Text],
    beams: int,
    length_penalty: float,
    length: int,
    tick: Callable[[int], None],
) -> None:
    """Search, and put the best continuation into each text."""

    def ends(text: Text) -> Callable[[Sequence[int]], bool]:
        def ended(ids: Sequence[int]) -> bool:
            if not text.stop:
                return ids[-1] in text.ends
            trial = text.again()
            for number in ids:
                trial.add(number, 0.0)
            return bool(trial.ended)

        return ended

    searched = [Beam(beams, length_penalty, ends(text)) for text in texts]
    search(writer, inputs, searched, length, tick)
    for text, beam in zip(texts, searched, strict=True):
        ids, total = beam.best()
        for number in ids:
            text.add(number, 0.0)
        text.log_probability = total


def _check(
    length: int, samples: int, beams: int, choice: Choice, tell: Callable[[Token], None] | None
) -> None:
    counts: dict[str, Any] = {"length": length, "samples": samples, "beams": beams}
    for name, value in counts.items():
        if not isinstance(value, int):
            raise ProgramError(f"{name}={value!r} is no whole number")
        if value < 1:
            raise ProgramError(f"{name}={value} is less than 1")
    if beams > 1 and (choice.draws or samples > 1):
        raise ProgramError(
            "beams are searched, not drawn: they have no temperature, top_k, top_p, seed or samples"
        )
    if beams > 1 and tell is not None:
        raise ProgramError("a beam search knows its text at the end only: nothing can be told")
    if samples > 1 and not choice.draws:
        raise ProgramError(f"{samples} samples of the best token are all the same", ["seed=0"])


def writer_of(model: Any, cache: bool) -> Writer:
    """What writes for a model: itself, or its graphs with or without a KV cache."""
    if isinstance(model, Writer):
        return model
    return cached(model) if cache else Uncached(*worded(model))


def _with_sides(roles: Roles, sides: Mapping[str, str]) -> Roles:
    for name, meaning in sides.items():
        others = [other for other in roles.meanings if other != roles.tokens]
        if name not in others or meaning not in MEANINGS:
            raise DataError(
                f"sides: input {name!r} cannot be {meaning!r}; inputs that go on beside the "
                f"tokens are {', '.join(others) or 'none'}",
                [" or ".join(map(repr, MEANINGS))],
            )
    return dataclasses.replace(roles, meanings={**roles.meanings, **sides})


def _ends_of(tokenizer: Any) -> list[int]:
    number = getattr(tokenizer, "eos_token_id", None)
    return [] if number is None else [int(number)]


@dataclasses.dataclass(frozen=True)
class _Told:
    """A writer about whose inputs somebody told more."""

    writer: Writer
    roles: Roles

    @property
    def wording(self) -> Wording:
        """As the writer."""
        return self.writer.wording

    def advance(self, inputs: Any, memory: Any = None) -> Any:
        """As the writer."""
        return self.writer.advance(inputs, memory)

    def select(self, memory: Any, rows: Any) -> Any:
        """As the writer."""
        return self.writer.select(memory, rows)


class _Bar:
    """Progress on a terminal, counted in tokens."""

    def __init__(self, wanted: bool | None, texts: int, length: int) -> None:
        console = Console(stderr=True)
        drawable = console.is_terminal or console.is_jupyter
        self.bar = Progress(console=console) if drawable and wanted is not False else None
        self.total = texts * length
        self.length = length
        self.done = 0
        self.running = 0

    def __enter__(self) -> _Bar:
        if self.bar is not None:
            self.task = self.bar.add_task("writing", total=self.total)
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def tick(self, going: int) -> None:
        """One token more for each text that goes on."""
        self.running += going
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done + self.running)

    def finished(self, texts: int) -> None:
        """Some texts are whole, however long they became."""
        self.done += texts * self.length
        self.running = 0
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)
