"""Text generation with a graph, a task or an ONNX Runtime session."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress

from graphprog.analysis.roles import MEANINGS, Roles
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import DataError, ProgramError
from graphprog.generation.batching import Prompts, Rows, batches_of, rows_of
from graphprog.generation.beam_search import Beam, search
from graphprog.generation.decode_loop import decode
from graphprog.generation.decoder import Decoder, PromptFormat
from graphprog.generation.kv_decoder import UncachedDecoder, graph_and_format, with_kv_cache
from graphprog.generation.output import GeneratedText, GeneratedToken
from graphprog.generation.sampling import Sampling
from graphprog.generation.streaming import Text
from graphprog.ir.graph import Graph


def generate(
    model: ReprogrammedModel | Graph | Decoder,
    prompts: Prompts,
    *,
    max_new_tokens: int = 64,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    num_return_sequences: int = 1,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    stop: Sequence[str] = (),
    ends: Sequence[int] | None = None,
    streamer: Callable[[GeneratedToken], None] | None = None,
    parse: Callable[[str], Any] | None = None,
    input_roles: Mapping[str, str] | None = None,
    use_cache: bool = True,
    progress: bool | None = None,
) -> list[GeneratedText]:
    """Generate text that continues prompts.

    Without ``temperature``, ``top_k``, ``top_p`` and ``seed``, decoding is greedy. Keys and values
    of earlier tokens and of a learned prompt are cached (:func:`graphprog.with_kv_cache`). Prompts
    of different lengths run together if a trial shows that padding before them changes nothing,
    else one length after the other: the text for a prompt does not depend on the other prompts.

    Args:
        model: a task or a graph that returns logits [B, S, V]; the result of
            :func:`graphprog.with_kv_cache`, which is then not derived again; or an ONNX Runtime
            session, :class:`graphprog.backends.onnxruntime.Decoder`.
        prompts: texts, or mappings with the fields of the program's template; sequences of token
            ids; or a mapping of input names to tensors, with one row per prompt. An
            encoder-decoder takes the latter, with the first tokens of the decoder.
        max_new_tokens: maximum number of tokens of a text.
        temperature: divides the logits.
        top_k: sample from this number of most probable tokens.
        top_p: sample from the most probable tokens that together have this probability.
        seed: seed of the sampling. The samples of a row do not depend on the rest of the batch.
        num_return_sequences: texts per prompt, grouped by prompt in the result.
        num_beams: number of beams; 1 for no beam search.
        length_penalty: beams are compared by log-probability over length to this power.
        stop: strings that end a text; they are not part of it.
        ends: ids of tokens that end a text; by default that of the tokenizer.
        streamer: called with every :class:`GeneratedToken` as soon as it is generated.
        parse: parser of answers; by default that of the program.
        input_roles: how inputs continue for a new token: ``present``, ``repeated`` or
            ``positions``.
        use_cache: False recomputes all tokens for each new one, for models without attention.
        progress: whether to show a bar; by default on a terminal.

    Returns:
        The generated texts, ``num_return_sequences`` for each prompt, in order.

    Raises:
        DataError: the prompts do not match the inputs of the graph.
        PassError: the model cannot have a KV cache; the message says where.
        ProgramError: an option is invalid, there is no tokenizer, or no logits are returned.

    Example:
        >>> (text,) = gp.generate(language, ["Hi"], max_new_tokens=4)
        >>> len(text.ids), text.ended
        (4, 'length')
    """
    sampling = Sampling(temperature, top_k, top_p, seed)
    _check(max_new_tokens, num_return_sequences, num_beams, sampling, streamer)
    if not math.isfinite(length_penalty):
        raise ProgramError(f"length_penalty={length_penalty} is not a finite number")
    if isinstance(stop, str) or "" in stop:
        raise ProgramError(f"stop={stop!r} is not a sequence of strings", ['stop=["\\n\\n"]'])
    if input_roles is not None and not isinstance(input_roles, Mapping):
        raise ProgramError(
            f"input_roles must map names of inputs to roles, not {input_roles!r:.60}",
            ['input_roles={"mask": "present"}'],
        )
    if ends is not None and not isinstance(ends, Collection):
        raise ProgramError(f"ends={ends} is not a sequence of ids", [f"ends=[{ends}]"])
    decoder = decoder_of(model, use_cache)
    prompt_format = decoder.prompt_format
    tokenizer = prompt_format.tokenizer
    if stop and tokenizer is None:
        raise ProgramError(
            "stop strings need a tokenizer", ["gp.capture(model, ..., tokenizer=tokenizer)"]
        )
    if input_roles:
        decoder = _WithRoles(decoder, _with_roles(decoder.roles, input_roles))
    rows = rows_of(prompts, decoder.roles, prompt_format)
    ended = frozenset(_ends_of(tokenizer) if ends is None else ends)
    texts = [
        Text(number, number // num_return_sequences, tokenizer, ended, tuple(stop), streamer)
        for number in range(len(rows) * num_return_sequences)
    ]
    with _Bar(progress, len(texts), max_new_tokens) as bar:
        for numbers, inputs in batches_of(rows, decoder):
            own = [
                texts[n * num_return_sequences + k]
                for n in numbers
                for k in range(num_return_sequences)
            ]
            if num_beams > 1:
                _search(decoder, inputs, own, num_beams, length_penalty, max_new_tokens, bar.tick)
            else:
                decode(decoder, inputs, own, sampling, max_new_tokens, bar.tick)
            bar.finished(len(own))
    return [text.output(parse or prompt_format.parser) for text in texts]


def _search(
    decoder: Decoder,
    inputs: Rows,
    texts: Sequence[Text],
    beams: int,
    length_penalty: float,
    length: int,
    tick: Callable[[int], None],
) -> None:
    """Run a beam search, and put the best beam into each text."""

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
    search(decoder, inputs, searched, length, tick)
    for text, beam in zip(texts, searched, strict=True):
        ids, total = beam.best()
        for number in ids:
            text.add(number, 0.0)
        text.log_probability = total


def _check(
    length: int,
    samples: int,
    beams: int,
    sampling: Sampling,
    streamer: Callable[[GeneratedToken], None] | None,
) -> None:
    counts: dict[str, Any] = {
        "max_new_tokens": length,
        "num_return_sequences": samples,
        "num_beams": beams,
    }
    for name, value in counts.items():
        if not isinstance(value, int):
            raise ProgramError(f"{name}={value!r} is not an integer")
        if value < 1:
            raise ProgramError(f"{name}={value} is less than 1")
    if beams > 1 and (sampling.draws or samples > 1):
        raise ProgramError(
            "num_beams: a beam search does not sample, so it takes no temperature, top_k, top_p, "
            "seed or num_return_sequences"
        )
    if beams > 1 and streamer is not None:
        raise ProgramError("a beam search cannot stream: its text is known only at the end")
    if samples > 1 and not sampling.draws:
        raise ProgramError(f"{samples} samples of the best token are all the same", ["pass seed=0"])


def decoder_of(model: Any, cache: bool) -> Decoder:
    """Return the decoder for a model: itself, or its graphs with or without a KV cache."""
    if isinstance(model, Decoder):
        return model
    return with_kv_cache(model) if cache else UncachedDecoder(*graph_and_format(model))


def _with_roles(roles: Roles, input_roles: Mapping[str, str]) -> Roles:
    for name, meaning in input_roles.items():
        others = [other for other in roles.meanings if other != roles.tokens]
        if name not in others or meaning not in MEANINGS:
            raise DataError(
                f"input_roles: input {name!r} cannot be {meaning!r}; inputs with a role besides "
                f"the tokens are {', '.join(others) or 'none'}",
                [" or ".join(map(repr, MEANINGS))],
            )
    return dataclasses.replace(roles, meanings={**roles.meanings, **input_roles})


def _ends_of(tokenizer: Any) -> list[int]:
    number = getattr(tokenizer, "eos_token_id", None)
    return [] if number is None else [int(number)]


@dataclasses.dataclass(frozen=True)
class _WithRoles:
    """A decoder whose inputs have the roles that the caller gave."""

    decoder: Decoder
    roles: Roles

    @property
    def prompt_format(self) -> PromptFormat:
        """As the decoder."""
        return self.decoder.prompt_format

    def advance(self, inputs: Any, cache: Any = None) -> Any:
        """As the decoder."""
        return self.decoder.advance(inputs, cache)

    def select(self, cache: Any, rows: Any) -> Any:
        """As the decoder."""
        return self.decoder.select(cache, rows)


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
        """Count one token for each unfinished text."""
        self.running += going
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done + self.running)

    def finished(self, texts: int) -> None:
        """Count texts as finished, whatever their length."""
        self.done += texts * self.length
        self.running = 0
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)
