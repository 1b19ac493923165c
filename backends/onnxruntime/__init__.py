"""ONNX Runtime: sessions that run exported files with the program they hold or another.

Sessions, providers, IO binding, caches of programs, decoding. The training names shown here are
defined in :mod:`graphprog.backends.onnx_training`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprog.utils.lazy import import_when_used

if TYPE_CHECKING:
    from graphprog.backends.onnx_training.export import export_training as export_training
    from graphprog.backends.onnx_training.trainer import Trainer as Trainer
    from graphprog.backends.onnxruntime.batches import run_in_batches as run_in_batches
    from graphprog.backends.onnxruntime.decoder import Decoder as Decoder
    from graphprog.backends.onnxruntime.io_binding import IOBinding as IOBinding
    from graphprog.backends.onnxruntime.lora_adapter import export_adapter as export_adapter
    from graphprog.backends.onnxruntime.multi_session import MultiSession as MultiSession
    from graphprog.backends.onnxruntime.program_cache import Array as Array
    from graphprog.backends.onnxruntime.program_cache import Program as Program
    from graphprog.backends.onnxruntime.session import Session as Session
    from graphprog.backends.onnxruntime.session_options import SessionOptions as SessionOptions

import_when_used(__name__)
