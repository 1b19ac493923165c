"""ONNX models and files: translation, names, metadata, external data, precision.

What is common to all kinds of ONNX files. Whole exports are in :mod:`graphprog.backends.onnx` and
:mod:`graphprog.backends.onnx_training`.
"""

from __future__ import annotations
