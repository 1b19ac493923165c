"""Saving and loading programs: files of kilobytes, without the source model."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from graphprog.alignments.label_mapping.table import check_mapping
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
from graphprog.io.limits import Limits
from graphprog.ir.fingerprint import Fingerprint
from graphprog.ir.graph import Graph, require_graph
from graphprog.spec.registry import from_json, to_json
from graphprog.text.prompting.tokenizer import require_tokenizer
from graphprog.values.allocation import allocating_at_most

_SPEC = "program.spec"


def save(task: ReprogrammedModel, path: str | os.PathLike[str], resume: bool = False) -> None:
    """Write the program of a task to a file, atomically.

    The file holds the learned and counted tensors, the program's spec, the passes that compiled
    it, the fingerprint of its source model, the contract, the labels, the mapping, and the
    training summary.

    Args:
        task: the task to save.
        path: the file to write.
        resume: keep the modules that compute entries, such as the layers of
            :class:`graphprog.reparameterized.MLP`, so that training can continue after loading. By
            default only the computed entries are saved, and loaded as plain entries.

    Raises:
        FileError: the file cannot be written.

    Example:
        >>> gp.save(task, "frame.safetensors")  # only the program, not the source model
        >>> again = gp.load("frame.safetensors", graph)
        >>> assert torch.equal(again(images), task(images))
    """
    warn_uncounted(task.spec.align.kind, task.alignment)
    task = merge_reparameterization(task, resume)
    tensors = task.program_state()
    write(path, tensors, document_of(task, tensors))


def document_of(task: ReprogrammedModel, tensors: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON document of a program; tensors of its spec are put into ``tensors``."""
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
    """Return the entries that only some programs have: user modules, and the tokenizer."""
    found: dict[str, Any] = {}
    if modules := carried.describe(task):
        found["modules"] = modules
    if task.prompt is not None and needs_tokenizer(task.spec):
        tokens = task.prompt.tokens
        found["tokenizer"] = {"name": tokens.name, "fingerprint": tokens.fingerprint}
    return found


def load(
    path: str | os.PathLike[str],
    graph: Graph,
    modules: Mapping[str, nn.Module] | None = None,
    limits: Limits | None = None,
) -> ReprogrammedModel:
    """Load a saved program, and compile it into its source model.

    Args:
        path: a file written by :func:`save`.
        graph: the source model, captured as it was for the program.
        modules: your own modules in the program, such as that of a
            :class:`~graphprog.Parametric`, by label: files do not hold code.
        limits: what the program may ask for; :class:`graphprog.io.limits.Limits` has the usual.

    Raises:
        FileError: the file cannot be read or belongs to another source model, its numbers are not
            finite or its mapping not that of its program, it asks for more than the limits, or a
            module is missing or differs; the message says which.

    Example:
        >>> gp.save(task, "frame.safetensors")  # only the program, not the source model
        >>> again = gp.load("frame.safetensors", graph)
        >>> assert torch.equal(again(images), task(images))
    """
    require_graph(graph)
    tensors, document = read(path)
    with within(path):
        program = from_json(document.get("program"), tensors)
        if not isinstance(program, Program):
            raise FileError("the document holds no program")
        limits = limits or Limits()
        limits.check(program, tensors)
        program = carried.supply(program, modules or {})
        _check_passes(document.get("source"), graph)
        check_source(document.get("source"), graph.name, graph.fingerprint)
        _check_tokenizer(document.get("tokenizer"), graph)
        seed = document.get("seed", 0)
        if not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise FileError(f"seed {seed!r} is not a seed of a random generator")
        try:
            with allocating_at_most(limits.bytes_of(tensors)):
                task = compile(graph, program, seed)
            carried.check(document.get("modules"), document["source"].get("torch"), task)
            state = {name: t for name, t in tensors.items() if not name.startswith(_SPEC + ".")}
            built = copy.deepcopy(task.alignment)
            task.load_program_state(state)
            check_mapping(task.spec.align, state, built)
        except GraphprogError as error:
            raise FileError(error.what, error.remedies) from error
        summary = document.get("training", {})
        task.summary = summary if isinstance(summary, dict) else {}
    return task


def _check_tokenizer(saved: Any, graph: Graph) -> None:
    """Compare the tokenizer of a program with that of the graph."""
    if saved is None:
        return
    name, fingerprint = (
        (saved.get("name"), saved.get("fingerprint")) if isinstance(saved, dict) else (None, None)
    )
    if graph.tokenizer is None:
        raise FileError(
            f"the program has text for the tokenizer {name!r:.80}, but the graph has none",
            ["use gp.capture(model, args, tokenizer=...) with the tokenizer of the model"],
        )
    own = require_tokenizer(graph.tokenizer, "the program")
    if own.fingerprint != fingerprint:
        raise FileError(
            f"the program was made with another tokenizer ({name!r:.80}, "
            f"{str(fingerprint)[:12]}) than that of the graph ({own.name}, {own.fingerprint[:12]}):"
            " its text would be other tokens",
            ["capture the source model with the tokenizer that the program was made with"],
        )


def optimizing_passes(graph: Graph) -> str:
    """Return the passes that changed a source model after its capture, as text."""
    captured = {str(item) for item in NORMALIZE.passes}
    changes = [step.text for step in graph.history if step.changed]
    return " ; ".join(text for text in changes if text not in captured)


def _check_passes(source: Any, graph: Graph) -> None:
    """Report the likeliest reason for other weights: one source was optimized, the other not."""
    if not isinstance(source, dict) or source.get("weights") == graph.fingerprint.weights:
        return
    made, own = source.get("passes"), optimizing_passes(graph)
    if isinstance(made, str) and made != own:
        remedy = "load it into a graph from the same passes"
        if not own:
            remedy = "load it into gp.optimize(graph), or run those passes on the graph"
            for name, bits in (("int8", "quantize-weights"), ("int4", "quantize-weights{bits=4}")):
                if made.split(" ; ")[-1] == bits:
                    remedy = f"load it into gp.optimize(graph, weights={name!r})"
        raise FileError(
            f"the program was made for a source changed by other passes ({made or 'none'}) than "
            f"this one ({own or 'none'})",
            [remedy],
        )


def check_source(source: Any, own_name: str, own: Fingerprint) -> None:
    """Compare the source model described in a document with the given one.

    The same weights traced differently by another version of torch are a warning, not an error.

    Raises:
        FileError: they differ; the message says how.
    """
    if not isinstance(source, dict):
        raise FileError("the document does not name the source model of the program")
    name = source.get("name")
    if source.get("weights") != own.weights:
        raise FileError(
            f"the program was made for other weights ({name}, {str(source.get('weights'))[:12]}) "
            f"than those of {own_name} ({own.weights[:12]})",
            [
                "load the checkpoint of the source model that the program was trained on",
                "look for code that wrote to the weights of this one, and capture it anew",
            ],
        )
    if source.get("text") == own.text:
        return
    message = (
        f"the weights match, but the program was made for another graph ({name}, "
        f"{str(source.get('text'))[:12]}) than {own_name} ({own.text[:12]})"
    )
    if source.get("torch") == torch.__version__:
        raise FileError(
            message,
            [
                "capture the source with the same input sizes and dynamic axes",
                "apply the same optimizing passes to it",
                "compare graph.text of both",
            ],
        )
    warnings.warn(
        f"{message}; it was traced by torch {source.get('torch')}, this one by {torch.__version__}."
        " Check its accuracy before you use it.",
        stacklevel=3,
    )
