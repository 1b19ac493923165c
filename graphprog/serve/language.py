"""Language models: texts that continue prompts, written by the program that a request names."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from graphprog.errors import FileError
from graphprog.generation.decoder import Decoder
from graphprog.generation.generate import generate
from graphprog.generation.kv_decoder import with_kv_cache
from graphprog.generation.output import GeneratedText, GeneratedToken
from graphprog.io.saving import load
from graphprog.ir.graph import Graph
from graphprog.serve.limits import Limits, RequestError
from graphprog.serve.metrics import Metrics
from graphprog.serve.served import Served

_LONGEST = 64
"""Characters per token beyond which a text is not even tokenized to count them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Writing:
    """Prompts of one request, and how to continue them.

    Attributes:
        decoder: of the model with its program.
        prompts: texts, or lists of token ids.
        max_new_tokens: of each text.
        stop: strings that end a text.
        temperature: 0 takes the most probable token each time.
        top_p: as for :func:`graphprog.generate`.
        seed: of the samples.
        samples: texts for each prompt.
        streamer: called in the thread that writes, with every token.
    """

    decoder: Decoder
    prompts: Sequence[Any]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float | None = None
    seed: int = 0
    samples: int = 1
    streamer: Callable[[GeneratedToken], None] | None = None

    @property
    def draws(self) -> bool:
        """Whether tokens are sampled."""
        return self.temperature > 0

    @property
    def key(self) -> Hashable:
        """What it has in common with others that can be written together.

        Samples depend on the number of the row, and streams on the thread: these are alone.
        """
        if self.draws or self.streamer is not None:
            return object()
        return id(self.decoder), self.max_new_tokens, self.stop


class LanguageModel(Served):
    """A language model, whose programs are loaded with it.

    Args:
        model: its graph, or a decoder of ONNX Runtime, which has no further programs.
        name: see :class:`Served`; limits and metrics likewise.
        limits: see there.
        metrics: see there.
    """

    def __init__(self, model: Graph | Decoder, name: str, limits: Limits, metrics: Metrics) -> None:
        super().__init__(name, limits, metrics)
        self._graph = model if isinstance(model, Graph) else None
        self._own = with_kv_cache(model) if isinstance(model, Graph) else model
        self._decoders: dict[str, Decoder] = {}

    def loaded(self, path: Path) -> Any:
        """Compile a program into the model, with a cache of keys and values.

        Raises:
            FileError: the file does not fit; or the model is a file, which holds its program.
        """
        if self._graph is None:
            raise FileError(
                f"{self.name} is a decoder with its program folded in: it takes no others",
                ["serve the model itself, by its name"],
            )
        task = load(path, self._graph)
        return with_kv_cache(task), task.spec.contract.labels

    def install(self, name: str, loaded: Any) -> Sequence[str]:
        """Put a program in place."""
        decoder, labels = loaded
        self._decoders[name] = decoder
        return tuple(labels)

    def uninstall(self, name: str) -> None:
        """Remove a program."""
        del self._decoders[name]

    def decoder(self, name: str) -> Decoder:
        """Return the decoder of a program, or that of the model.

        Raises:
            RequestError: no such program (404).
        """
        if name == self.name:
            return self._own
        self.program(name)
        return self._decoders[name]

    async def write(self, writing: Writing) -> list[GeneratedText]:
        """Return the texts for prompts, ``samples`` for each, in order.

        Raises:
            DataError: a prompt does not fit the model.
            RequestError: the server is busy.
        """
        rows = len(writing.prompts) * writing.samples
        if rows <= self.limits.batch:
            await asyncio.to_thread(self._require_short, writing)
        found: list[GeneratedText] = await self.batcher.submit(writing.key, rows, writing)
        return found

    def _require_short(self, writing: Writing) -> None:
        """Refuse prompts that are too long.

        Raises:
            RequestError: says the limit (413).
        """
        limit, prompt = self.limits.length, writing.decoder.prompt_format.prompt
        for number, one in enumerate(writing.prompts):
            count = len(one)
            if isinstance(one, str) and prompt is not None and count <= _LONGEST * limit:
                count = len(prompt.tokens.plain(one))
            if count > limit:
                raise RequestError(413, f"prompt {number} has more than {limit} tokens")

    def compute(self, jobs: Sequence[Writing]) -> Sequence[list[GeneratedText]]:
        """Write the texts of several requests together."""
        first = jobs[0]
        texts = generate(
            first.decoder,
            [prompt for job in jobs for prompt in job.prompts],
            max_new_tokens=first.max_new_tokens,
            temperature=first.temperature if first.draws else None,
            top_p=first.top_p if first.draws else None,
            seed=first.seed if first.draws else None,
            num_return_sequences=first.samples,
            stop=first.stop,
            streamer=first.streamer,
            progress=False,
        )
        self.metrics.tokens.inc(sum(len(text.ids) for text in texts))
        found, start = [], 0
        for job in jobs:
            end = start + len(job.prompts) * job.samples
            found.append(texts[start:end])
            start = end
        return found
