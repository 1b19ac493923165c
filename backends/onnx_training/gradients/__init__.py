"""Gradients of operations, written in operations that ONNX Runtime has for inference.

One file per family; ``table`` registers them.
"""

from __future__ import annotations
