"""Training steps as ONNX graphs: forward, loss, gradients of the program, and update in one."""

from __future__ import annotations
