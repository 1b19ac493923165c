"""Training engines: PyTorch or ONNX Runtime."""

from __future__ import annotations

ENGINES = {
    "pytorch": "graphprog.train.loop.epoch:Trainer",
    "onnxruntime": "graphprog.backends.onnx_training.fit_engine:OnnxTrainer",
}
"""The trainer of each engine, as ``module:class``; it is imported when a run uses the engine."""
