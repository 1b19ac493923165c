"""ONNX files of tasks: one program, overridable, one per row, several kinds; fewer bits.

Exports and quantization. Running the files belongs in :mod:`graphprog.backends.onnxruntime`.
"""

from __future__ import annotations

from graphprog.backends.onnx.decoder import export_decoder
from graphprog.backends.onnx.export import Mode, export
from graphprog.backends.onnx.multi_graph import export_multi_graph
from graphprog.backends.onnx.quantize import quantize

__all__ = ["Mode", "export", "export_decoder", "export_multi_graph", "quantize"]
