"""ONNX files for generation: keys and values are inputs and outputs.

A decoder-only model is one file: without cached keys and values it reads a whole text, with them
only new tokens. An encoder-decoder is two files: the name of the one for the prefill ends in
``.prefill.onnx``.
"""

from __future__ import annotations

import dataclasses
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import onnx_ir as ir
import torch

from graphprog.analysis.roles import Roles
from graphprog.backends.onnx_model.export_program import exported_graph
from graphprog.backends.onnx_model.external_data import describe_model, weights_beside
from graphprog.backends.onnx_model.lower import lower_program
from graphprog.backends.onnx_model.precision import linear_in_int8
from graphprog.backends.onnxruntime.decoder import ROLES, WORDING, Decoder, prefill_path
from graphprog.compiler.compile import compile
from graphprog.compiler.merge_reparameterization import merge_reparameterization
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import BackendError, FileError
from graphprog.generation.decoder import text_parts
from graphprog.generation.kv_decoder import CachedDecoder, with_kv_cache, with_stored_prompt
from graphprog.instruments.divergence import TOLERANCE
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import inputs_of
from graphprog.passes.attention.split_kv import SplitKV
from graphprog.passes.kv.cached_step import Values
from graphprog.passes.kv.kv_layout import KVLayout
from graphprog.passes.kv.verify_cache import inputs_of_length, parts_of
from graphprog.spec.registry import to_json
from graphprog.utils.files import proved_write
from graphprog.utils.json import render_json

Precision = Literal["float32", "int8"]


@dataclasses.dataclass(frozen=True)
class DecoderReport:
    """Comparison of a decoder file with the graph that reads whole texts.

    Attributes:
        precision: precision of the weights of linear layers.
        max_absolute: largest difference of a logit, over two texts and one, read in three parts.
        max_relative: the same relative to the largest logit.
        passed: whether that is within the tolerance; int8 always passes.
    """

    precision: str
    max_absolute: float
    max_relative: float
    passed: bool


def export_decoder(
    model: ReprogrammedModel | Graph,
    path: str | os.PathLike[str],
    *,
    precision: Precision = "float32",
    tolerance: float = TOLERANCE,
) -> DecoderReport:
    """Export a model for generation as ONNX, and compare it with the graph on texts.

    Args:
        model: a task or a graph that :func:`graphprog.with_kv_cache` takes.
        path: the file, written atomically; its name ends in ``.onnx``. Weights of 2 GiB and more
            lie beside it.
        precision: ``int8`` quantizes the weights of linear layers, and their inputs dynamically;
            the tensors of the program stay unchanged.
        tolerance: largest difference that counts as equal, absolute or relative.

    Raises:
        BackendError: no translation, bfloat16, or the results differ.
        FileError: the place cannot be written. As with every error, an old file stays.
        PassError: the model cannot have a KV cache.

    Example:
        >>> report = gp.backends.onnx.export_decoder(language, "small.onnx")
        >>> decoder = gp.backends.onnxruntime.Decoder("small.onnx", tokenizer)
        >>> texts = gp.generate(decoder, ["Hi"], max_new_tokens=4)
    """
    if precision not in ("float32", "int8"):
        raise BackendError(f'precision={precision!r} is unknown; "float32" or "int8"')
    if not os.fspath(path).endswith(".onnx"):
        raise FileError(f"{os.fspath(path)}: the name of an ONNX file ends in .onnx")
    task = merge_reparameterization(
        model if isinstance(model, ReprogrammedModel) else compile(model, Program())
    )
    task = with_stored_prompt(task)
    both = with_kv_cache(task)
    _refuse_bfloat16(both)
    graphs = [both.decode]
    if has_towers := any(name.startswith("cross_") for name in both.decode.call_spec.inputs):
        graphs.append(both.prefill)
    with ExitStack() as kept:
        ready = []
        for graph, at in zip(graphs, _files(path), strict=False):
            lowered = _document(_lowered(both, graph), task, both.roles)
            fewer = linear_in_int8(lowered) if precision == "int8" else lowered
            ready.append(kept.enter_context(weights_beside(fewer, at)))

        def write(temporary: Path) -> DecoderReport:
            try:
                for one, at in zip(ready, _files(temporary), strict=False):
                    ir.save(one, at)
                decoder = Decoder(temporary, providers="cpu")
                report = _compared(both, decoder, precision, tolerance)
                if has_towers:
                    os.replace(prefill_path(temporary), prefill_path(path))
                return report
            finally:
                prefill_path(temporary).unlink(missing_ok=True)

        return proved_write(path, write)


def _files(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Return the paths of a decoder: that of every step, and that of the prefill."""
    return Path(path), prefill_path(path)


def _refuse_bfloat16(both: CachedDecoder) -> None:
    if any(spec.dtype is torch.bfloat16 for spec in inputs_of(both.decode)):
        raise BackendError(
            f"{both.source.name} computes in bfloat16, which ONNX Runtime does not",
            ["capture the source model in float32 or float16"],
        )


def _lowered(both: CachedDecoder, graph: Graph) -> ir.Model:
    """Make the ONNX model of a graph, without metadata."""
    inputs, cache = _example(both)
    values = {**inputs, **(cache if graph is both.decode else {})}
    specs = inputs_of(graph)
    example = tuple(values[spec.name] for spec in specs)
    names = tuple(node.name for node in graph.output_nodes)
    program = exported_graph(SplitKV()(graph), example, names, graph.device)
    return lower_program(program, specs, graph.outputs)


def _example(both: CachedDecoder) -> tuple[Values, Values]:
    """Return inputs of some tokens, and the cache of all but the last."""
    axis = KVLayout.of(both.source.code).axis
    whole = inputs_of_length(both.source, axis, 11)
    first = {
        name: value.narrow(both.roles.dim(name), 0, 6) if name in both.roles.meanings else value
        for name, value in whole.items()
    }
    with torch.no_grad():
        _, cache = both.results(first)
    return whole, cache


def _document(model: ir.Model, task: ReprogrammedModel, roles: Roles) -> ir.Model:
    describe_model(model, task, "decoder")
    texts, parser = text_parts(task.spec)
    words = Program(texts) if parser is None else Program(texts, align=parser)
    held = {name: getattr(roles, name) for name in ("tokens", "axis", "meanings", "logits", "rows")}
    model.metadata_props[ROLES] = json.dumps(held)
    model.metadata_props[WORDING] = render_json(to_json(words, {}, "words"), WORDING)
    return model


def _compared(
    both: CachedDecoder, decoder: Decoder, precision: Precision, tolerance: float
) -> DecoderReport:
    """Read texts in parts, two at once and one alone."""
    parts = [part for rows in (2, 1) for part in parts_of(both.source, decoder.results, rows)]
    gaps = [gap for part in parts for gap in part.gaps.values()]
    passed = precision == "int8" or all(gap.within(tolerance) for gap in gaps)
    report = DecoderReport(
        precision, max(gap.absolute for gap in gaps), max(gap.relative for gap in gaps), passed
    )
    if not passed:
        raise BackendError(
            f"{both.source.name}: ONNX Runtime writes other than the graph: {report}",
            ["capture the source model in float32", "use a higher tolerance"],
        )
    return report
