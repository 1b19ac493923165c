"""ONNX models and files: translation, names, metadata, weights beside the graph, precision."""

from __future__ import annotations
