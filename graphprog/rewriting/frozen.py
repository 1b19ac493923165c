"""Modules that are part of a program, but neither trained nor saved."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class Frozen(nn.Module):
    """A copy of a module over the same memory, always in eval mode.

    Its tensors are buffers that are not in the state dict.

    Args:
        module: the module to copy; it is not changed.
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
                part.track_running_stats = False  # else loading a state dict requires their count

    def train(self, mode: bool = True) -> Frozen:
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, *args: Any) -> Any:
        """Call the module."""
        return self.module(*args)
