"""Export of tasks to ONNX in every form of their programs, and quantization.

``decoder`` exports text generation with a KV cache. Running the files belongs in
:mod:`graphprog.backends.onnxruntime`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprog.utils.lazy import import_when_used

if TYPE_CHECKING:
    from graphprog.backends.onnx.decoder import export_decoder as export_decoder
    from graphprog.backends.onnx.export import Mode as Mode
    from graphprog.backends.onnx.export import export as export
    from graphprog.backends.onnx.multi_graph import export_multi_graph as export_multi_graph
    from graphprog.backends.onnx.quantize import quantize as quantize

import_when_used(__name__)
