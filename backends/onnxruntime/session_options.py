"""How ONNX Runtime runs a model: threads, memory, optimization."""

from __future__ import annotations

import dataclasses
import os
from typing import Literal, get_args

import onnxruntime

from graphprog.errors import BackendError

Optimization = Literal["none", "basic", "extended", "all"]

_LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_ERRORS_ONLY = 3


@dataclasses.dataclass(frozen=True)
class SessionOptions:
    """Options of a session or decoder; ONNX Runtime's own object is taken in its place too.

    Attributes:
        threads: number of threads per operation; None for one per core.
        arena: whether memory is kept for the next run, which is faster, or given back.
        optimization: how far the graph is rewritten when it is loaded.
        optimized: where to save the rewritten graph, so that another session, with
            ``optimization="none"``, need not rewrite it; it suits this kind of machine and these
            providers only.

    Raises:
        BackendError: a value is not one of those.

    Example:
        >>> options = gp.backends.onnxruntime.SessionOptions(threads=1, arena=False)
        >>> session = gp.backends.onnxruntime.Session("task.onnx", options=options)
    """

    threads: int | None = None
    arena: bool = True
    optimization: Optimization = "all"
    optimized: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise BackendError(f"threads={self.threads}: there must be one or more, or None")
        if self.optimization not in get_args(Optimization):
            known = ", ".join(get_args(Optimization))
            raise BackendError(f"optimization={self.optimization!r} is unknown; one of {known}")

    def made(self) -> onnxruntime.SessionOptions:
        """ONNX Runtime's object, which reports errors only."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.graph_optimization_level = _LEVELS[self.optimization]
        options.enable_cpu_mem_arena = options.enable_mem_pattern = self.arena
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        if self.optimized is not None:
            options.optimized_model_filepath = os.fspath(self.optimized)
        return options


Options = SessionOptions | onnxruntime.SessionOptions | None
