"""ONNX files of tasks: one program, an overridable one, one per row, several kinds; fewer bits."""

from __future__ import annotations

from graphprog.backends.onnx.decoder import export_writer
from graphprog.backends.onnx.export import Mode, export
from graphprog.backends.onnx.multi_graph import export_slots
from graphprog.backends.onnx.quantize import quantise

__all__ = ["Mode", "export", "export_slots", "export_writer", "quantise"]
