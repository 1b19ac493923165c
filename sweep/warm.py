"""What tracing and exporting prepare on their first use, done once before processes are forked."""

from __future__ import annotations

import gc

import sweep.preload  # noqa: F401  isort: skip

import torch
from torch import nn

import graphprog as gp
from graphprog.backends.onnx.export import lower


def warm() -> None:
    """Capture, compile and lower a model of one layer; no session is opened, which has threads."""
    graph = gp.capture(nn.Linear(2, 2), (torch.zeros(2, 2),))
    task = gp.compile(graph, gp.Program(gp.Additive()))
    lower(task, task.input_example(2), "folded")


warm()
gc.collect()
gc.freeze()  # what is shared by all processes need not be looked through by each
