"""Training steps as ONNX graphs: forward, loss, gradients of the program, and update in one.

This package builds, checks and runs the step; gradients of single operations are in ``gradients``.
"""

from __future__ import annotations
