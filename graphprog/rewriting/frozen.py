"""A module that is part of a program, but neither trained nor saved."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class Frozen(nn.Module):
    """A module over the same memory as the one given, always in evaluation.

    Its tensors are buffers that a state does not have.

    Args:
        module: what to do the same as; it is not changed.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        tensors = [*module.parameters(), *module.buffers()]
        self.module = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors}).eval()
        for part in self.module.modules():
            for name, parameter in list(part.named_parameters(recurse=False)):
                delattr(part, name)
                part.register_buffer(name, parameter.detach(), persistent=False)
            part._non_persistent_buffers_set.update(part._buffers)
            if isinstance(part, _BatchNorm):
                part.track_running_stats = False  # else loading a state asks for their count

    def train(self, mode: bool = True) -> Frozen:
        """Stay in evaluation."""
        return super().train(False)

    def forward(self, *args: Any) -> Any:
        """Call the module."""
        return self.module(*args)
