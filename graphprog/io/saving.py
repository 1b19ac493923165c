"""Saving and loading programs: kilobytes beside a source model that is not in the file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from graphprog.capture.lift import NORMALIZE
from graphprog.compiler.compile import compile
from graphprog.compiler.data_checks import warn_uncounted
from graphprog.compiler.lower_text import needs_tokenizer
from graphprog.compiler.merge_reparameterization import merge_reparameterization
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import FileError, GraphprogError
from graphprog.io import external_modules as carried
from graphprog.io.artifact import read, within, write
from graphprog.ir.fingerprint import Fingerprint
from graphprog.ir.graph import Graph, require_graph
from graphprog.spec.registry import from_json, to_json
from graphprog.text.prompting.tokenizer import require_tokenizer

_SPEC = "program.spec"


def save(task: ReprogrammedModel, path: str | os.PathLike[str], resume: bool = False) -> None:
    """Write the program of a task, atomically.

    The file holds the learnt and counted tensors, the program's spec, the passes that compiled
    it, the fingerprint of its source, the contract, the labels, the mapping, and the training
    summary.

    Args:
        task: what to save.
        path: the file.
        resume: keep what entries are computed from, such as the layers of
            :class:`graphprog.reparameterized.MLP`, so that a loaded program trains on as this one
            would. Otherwise only what comes out of it is kept, and loads as plain entries.

    Raises:
        FileError: the place cannot be written.

    Example:
        >>> gp.save(task, "frame.safetensors")  # the program alone: the source is not in it
        >>> again = gp.load("frame.safetensors", graph)
        >>> assert torch.equal(again(images), task(images))
    """
    warn_uncounted(task.spec.align.kind, task.alignment)
    task = merge_reparameterization(task, resume)
    tensors = task.program_state()
    write(path, tensors, document_of(task, tensors))


def document_of(task: ReprogrammedModel, tensors: dict[str, Any]) -> dict[str, Any]:
    """The JSON document of a program; tensors of its spec are put into ``tensors``."""
    fingerprint = task.base.fingerprint
    align = task.spec.align
    return {
        "program": to_json(task.spec, tensors, _SPEC),
        "pipeline": task.pipeline.text(tensors),
        "seed": task.seed,
        "source": {
            "name": task.base.name,
            "text": fingerprint.text,
            "weights": fingerprint.weights,
            "torch": torch.__version__,
            "passes": optimizing_passes(task.base),
        },
        "contract": to_json(task.spec.contract, {}),
        "labels": list(task.spec.contract.labels),
        "mapping": {
            "by": str(align),
            "tensors": [name for name in tensors if name.startswith("program.align.")],
        },
        "training": task.summary,
    } | _beside(task)


def _beside(task: ReprogrammedModel) -> dict[str, Any]:
    """What only some programs have: modules of the user's, and text that a tokenizer reads."""
    found: dict[str, Any] = {}
    if modules := carried.describe(task):
        found["modules"] = modules
    if task.prompt is not None and needs_tokenizer(task.spec):
        tokens = task.prompt.tokens
        found["tokenizer"] = {"name": tokens.name, "fingerprint": tokens.fingerprint}
    return found


def load(
    path: str | os.PathLike[str], graph: Graph, modules: Mapping[str, nn.Module] | None = None
) -> ReprogrammedModel:
    """Compile a saved program into its source model again.

    Args:
        path: a file written by :func:`save`.
        graph: the source model, captured as it was when the program was made.
        modules: modules of your own that the program has, such as that of a
            :class:`~graphprog.Parametric`, by label: no file carries code.

    Raises:
        FileError: the file is unreadable, or belongs to another source, or a module is missing or
            another one; says which part differs.

    Example:
        >>> gp.save(task, "frame.safetensors")  # the program alone: the source is not in it
        >>> again = gp.load("frame.safetensors", graph)
        >>> assert torch.equal(again(images), task(images))
    """
    require_graph(graph)
    tensors, document = read(path)
    with within(path):
        program = from_json(document.get("program"), tensors)
        if not isinstance(program, Program):
            raise FileError("the document holds no program")
        program = carried.supply(program, modules or {})
        _check_passes(document.get("source"), graph)
        check_source(document.get("source"), graph.name, graph.fingerprint)
        _check_tokenizer(document.get("tokenizer"), graph)
        seed = document.get("seed", 0)
        if not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise FileError(f"seed {seed!r} is not a number that a generator takes")
        try:
            task = compile(graph, program, seed)
            carried.check(document.get("modules"), document["source"].get("torch"), task)
            task.load_program_state(
                {name: t for name, t in tensors.items() if not name.startswith(_SPEC + ".")}
            )
        except GraphprogError as error:
            raise FileError(error.what, error.remedies) from error
        summary = document.get("training", {})
        task.summary = summary if isinstance(summary, dict) else {}
    return task


def _check_tokenizer(saved: Any, graph: Graph) -> None:
    """Compare the tokenizer that a program was made with with that of the graph."""
    if saved is None:
        return
    name, fingerprint = (
        (saved.get("name"), saved.get("fingerprint")) if isinstance(saved, dict) else (None, None)
    )
    if graph.tokenizer is None:
        raise FileError(
            f"the program has text for the tokenizer {name!r:.80}, and the graph has none",
            ["gp.capture(model, args, tokenizer=...), with the tokenizer of the model"],
        )
    own = require_tokenizer(graph.tokenizer, "the program")
    if own.fingerprint != fingerprint:
        raise FileError(
            f"the program was made with another tokenizer ({name!r:.80}, "
            f"{str(fingerprint)[:12]}) than that of the graph ({own.name}, {own.fingerprint[:12]}):"
            " its text would be other tokens",
            ["capture the source with the tokenizer that the program was made with"],
        )


def optimizing_passes(graph: Graph) -> str:
    """The passes that changed a source after it was captured, as text."""
    captured = {str(item) for item in NORMALIZE.passes}
    changes = [step.text for step in graph.history if step.changed]
    return " ; ".join(text for text in changes if text not in captured)


def _check_passes(source: Any, graph: Graph) -> None:
    """Name the likeliest reason for other weights: the source was optimized, or was not."""
    if not isinstance(source, dict) or source.get("weights") == graph.fingerprint.weights:
        return
    made, own = source.get("passes"), optimizing_passes(graph)
    if isinstance(made, str) and made != own:
        remedy = "load it into a graph that the same passes made"
        if not own:
            remedy = "load it into gp.optimize(graph), or into what those passes make of the graph"
        raise FileError(
            f"the program was made for a source that other passes made ({made or 'none'}) than "
            f"this one ({own or 'none'})",
            [remedy],
        )


def check_source(source: Any, own_name: str, own: Fingerprint) -> None:
    """Compare what a document says of its source model with the source model at hand.

    The same weights traced differently by another version of torch are a warning, not an error.

    Raises:
        FileError: they differ; says in what.
    """
    if not isinstance(source, dict):
        raise FileError("the document does not say which source model it belongs to")
    name = source.get("name")
    if source.get("weights") != own.weights:
        raise FileError(
            f"the program was made for other weights ({name}, {str(source.get('weights'))[:12]}) "
            f"than those of {own_name} ({own.weights[:12]})",
            ["load the checkpoint of the source model that the program was trained on"],
        )
    if source.get("text") == own.text:
        return
    message = (
        f"the weights are the right ones, but the program was made for another graph ({name}, "
        f"{str(source.get('text'))[:12]}) than {own_name} ({own.text[:12]})"
    )
    if source.get("torch") == torch.__version__:
        raise FileError(
            message,
            [
                "capture the source with the same input sizes and dynamic axes",
                "apply the same optimizing passes to it",
                "graph.text of both shows where they differ",
            ],
        )
    warnings.warn(
        f"{message}; it was traced by torch {source.get('torch')}, this one by {torch.__version__}."
        " Check its accuracy before you rely on it.",
        stacklevel=3,
    )
