"""Opening of what is to be served: an ONNX file, a folder of them, or a model by name."""

from __future__ import annotations

import atexit
import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from graphprog.analysis.token_inputs import writes_on
from graphprog.backends.onnx.export import export
from graphprog.backends.onnx.multi_graph import export_multi_graph
from graphprog.backends.onnx_model.metadata import Deployed
from graphprog.backends.onnx_model.program_files import in_graph
from graphprog.backends.onnxruntime.decoder import ROLES, Decoder
from graphprog.backends.onnxruntime.multi_session import MultiSession, metadata_of
from graphprog.backends.onnxruntime.session import Session
from graphprog.backends.onnxruntime.session_options import SessionOptions
from graphprog.compiler.compile import compile as compile_program
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import BackendError
from graphprog.io.artifact import read
from graphprog.io.saving import load
from graphprog.ir.graph import Graph
from graphprog.serve.language import LanguageModel
from graphprog.serve.limits import Limits
from graphprog.serve.logs import log
from graphprog.serve.metrics import Metrics
from graphprog.serve.rows import RowModel
from graphprog.serve.served import Served
from graphprog.serve.texts import TextReader, tokenizer_of

Files = Mapping[str, Path]
"""Files of programs by name."""


@dataclasses.dataclass(frozen=True)
class _Opening:
    """How to open a model."""

    name: str
    limits: Limits
    tokenizer: str
    providers: str
    threads: int | None

    @property
    def options(self) -> SessionOptions:
        """Options of ONNX Runtime."""
        return SessionOptions(threads=self.threads)

    def rows(self, session: Session | MultiSession, tokenizer: Any) -> RowModel:
        """Return a model that computes rows."""
        reader = None if tokenizer is None else TextReader(tokenizer, _document(session))
        return RowModel(session, self.name, self.limits, Metrics(), reader)


def open_served(
    model: str,
    programs: Files,
    limits: Limits,
    *,
    capture: Callable[[], Graph],
    name: str = "model",
    tokenizer: str = "",
    providers: str = "auto",
    threads: int | None = None,
) -> Served:
    """Open a model with programs.

    Args:
        model: an ONNX file, a folder that ``export_multi_graph`` wrote, or anything else: then
            ``capture`` returns its graph, which is exported for the programs. A language model
            whose programs return logits of the next token is served as it is.
        programs: to begin with.
        limits: of requests.
        capture: captures the model.
        name: of the model for clients.
        tokenizer: folder or name of transformers, for files; a graph has its own.
        providers: as for :class:`Session`.
        threads: of ONNX Runtime.

    Raises:
        FileError: a file is missing, damaged, or does not fit.
        BackendError: the model cannot be exported with these programs.
    """
    how = _Opening(name, limits, tokenizer, providers, threads)
    if os.path.isdir(model) and any(Path(model).glob("*.onnx")):
        served: Served = how.rows(MultiSession(model, providers), tokenizer_of(tokenizer))
    elif model.endswith(".onnx"):
        served = _of_file(model, how)
    else:
        served = _of_graph(capture(), programs, how)
    for one, file in programs.items():
        served.add(one, file)
    return served


def _of_file(path: str, how: _Opening) -> Served:
    tokenizer = tokenizer_of(how.tokenizer)
    if ROLES in metadata_of(Path(path)):
        decoder = Decoder(path, tokenizer, how.providers, how.options)
        return LanguageModel(decoder, how.name, how.limits, Metrics())
    return how.rows(Session(path, how.providers, how.options), tokenizer)


def _of_graph(graph: Graph, programs: Files, how: _Opening) -> Served:
    """Return a captured model: a language model as it is, others exported."""
    tasks = {name: load(file, graph) for name, file in programs.items()}
    if writes_on(graph) and all(writes_on(task.graph) for task in tasks.values()):
        return LanguageModel(graph, how.name, how.limits, Metrics())
    folder = tempfile.TemporaryDirectory(prefix="graphprog-serve-")
    atexit.register(folder.cleanup)
    kinds = _kinds(tasks, programs)
    if len(kinds) > 1:
        export_multi_graph(graph, folder.name, {name: task.spec for name, task in kinds.items()})
        return how.rows(MultiSession(folder.name, how.providers), graph.tokenizer)
    path = Path(folder.name) / "model.onnx"
    _export(graph, kinds, path)
    session = Session(path, how.providers, how.options)
    return how.rows(session, graph.tokenizer if session.document.text else None)


def _kinds(tasks: Mapping[str, ReprogrammedModel], files: Files) -> dict[str, ReprogrammedModel]:
    """Return a task of each kind of program, by the name of its first program."""
    found: dict[str, tuple[str, ReprogrammedModel]] = {}
    for name, task in tasks.items():
        kind = repr(in_graph(read(files[name])[1].get("program"), {"classes": 0}))
        found.setdefault(kind, (name, task))
    return dict(found.values())


def _export(graph: Graph, kinds: Mapping[str, ReprogrammedModel], path: Path) -> None:
    """Export the model for programs of one kind, or without any."""
    if not kinds:
        export(compile_program(graph, Program()), path)
        return
    (task,) = kinds.values()
    try:
        export(task, path, program="per_row")
    except BackendError as error:
        log("rows with different programs are computed one after the other", reason=error.what)
        export(task, path, program="overridable")


def _document(session: Session | MultiSession) -> Deployed:
    if isinstance(session, Session):
        return session.document
    return next(iter(session.documents.values()))
