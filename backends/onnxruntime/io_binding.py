"""IO binding: inputs and outputs stay on the device of a session."""

from __future__ import annotations

import onnxruntime
import torch
from torch.utils.dlpack import from_dlpack

from graphprog.backends.onnxruntime.program_cache import Program
from graphprog.backends.onnxruntime.session import Session
from graphprog.errors import BackendError
from graphprog.ir.inputs import check_type

_ON_CUDA = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


class IOBinding:
    """One program of a session, with inputs, outputs and the program on the session's device.

    Args:
        session: the session to run.
        program: as for ``Session.run``; it is copied to the device once.

    Raises:
        BackendError: the program does not fit, or the file has one per row.

    Attributes:
        device: device of inputs and outputs.

    Example:
        >>> session = gp.backends.onnxruntime.Session("task.onnx", "cpu")
        >>> (logits,) = gp.backends.onnxruntime.IOBinding(session).run(images)
        >>> logits.shape
        torch.Size([4, 2])
    """

    def __init__(self, session: Session, program: Program | None = None) -> None:
        if session.document.per_row:
            raise BackendError(
                f"{session.path}: it has one program per row",
                ['export(task, path, program="overridable")'],
            )
        self._owner = session
        self._session = session._session
        self.device = torch.device("cuda" if session.providers[0] in _ON_CUDA else "cpu")
        tensors = {} if program is None else session.resolve(program).tensors
        if missing := session.program_inputs.difference(tensors):
            raise BackendError(f"the program has no {', '.join(sorted(missing))}")
        self._program = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array, self.device.type)
            for name, array in tensors.items()
        }

    def run(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run on one batch; outputs are on the device, and inputs there are not copied.

        Shapes and types of inputs are checked; ranges are not, which would wait for the device.

        Raises:
            DataError: an input has another shape or type.
            BackendError: ONNX Runtime fails.
        """
        binding = self._session.io_binding()
        for spec, value in zip(self._owner.inputs, inputs, strict=True):
            check_type(spec, value)
            there = value.detach().to(self.device, spec.dtype).contiguous()
            binding.bind_ortvalue_input(spec.name, onnxruntime.OrtValue.from_dlpack(there))
        for name, tensor in self._program.items():
            binding.bind_ortvalue_input(name, tensor)
        for entry in self._session.get_outputs():
            binding.bind_output(entry.name, self.device.type)
        if self.device.type == "cuda":
            torch.cuda.current_stream().synchronize()  # ONNX Runtime has a stream of its own
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise BackendError(f"{self._owner.path}: failed: {error}") from error
        binding.synchronize_outputs()
        return tuple(from_dlpack(value) for value in binding.get_outputs())
