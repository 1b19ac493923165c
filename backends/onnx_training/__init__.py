"""Training steps as ONNX graphs: forward, loss, gradients of the program, and update in one.

The step is built and checked here, and run by the trainer; gradients of single operations are in
``gradients``.
"""

from __future__ import annotations
