"""Generated prompts: a small decoder computes a pattern that is added to an image."""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.manipulations.modules.parametric import class_name
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.rewriting.frozen import Frozen
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.layers import restart
from graphprog.values.requirements import require_axes, require_floats

_MAX_STAGES = 5
_MIN_SIDE = 7


@spec("generated")
@dataclasses.dataclass(frozen=True)
class Generated(SelectiveManipulation):
    """Add a generated pattern, ``clip(x + strength · h(z))``, computed by a small decoder h.

    The coordinator of BlackVIP (Oh et al., CVPR 2023), where z consists of the features of a frozen
    encoder and a learned trigger vector. z is reshaped to ``channels`` small planes, of 7 by 7 for
    images of 224 by 224. Up to five stages of depthwise transposed convolution, pointwise
    convolution, batch norm and GELU double their size, until a last pointwise convolution maps them
    to the channels of the image. Keeping the number of channels in all stages is our choice. The
    trigger starts as U(0, 0.1); a new program does not start as the source.

    The features come from an interface that does not depend on the image, from another part of
    the program, or, if ``encoder`` is given, from that module applied to the image: it is frozen,
    shares its tensors with the given module, and is not saved. Give it again when loading:
    ``gp.load(path, graph, modules={"generated": encoder})``.

    Attributes:
        clip: (low, high) bounds of the sum in the space of the program, or None; the gradient is
            zero outside of the bounds.
        encoder: maps images [B, C, H, W] to features [B, f]; put it in eval mode first.
        features: interface of the features, in place of an encoder; see :attr:`Manipulation.reads`.
        strength: ε, the factor of the pattern.
        channels: number of planes at the start of the decoder.
        of: qualified name of the encoder's class; set automatically.

    Example:
        >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 8)).eval()
        >>> painted = gp.Generated(clip=(0, 1), encoder=encoder, channels=4)
        >>> task = gp.compile(graph, gp.Program([painted]))
    """

    clip: tuple[float, float] | None
    encoder: nn.Module | None = dataclasses.field(
        default=None, compare=False, repr=False, metadata={"saved": False}
    )
    features: str = ""
    strength: float = 1.0
    channels: int = 32
    of: str = ""

    def __post_init__(self) -> None:
        if self.clip is not None:
            low, high = self.clip
            if not low < high:
                raise ProgramError(f"clip bounds {self.clip} are not in order")
            object.__setattr__(self, "clip", (float(low), float(high)))
        if self.encoder is not None:
            object.__setattr__(self, "of", class_name(self.encoder))
        if bool(self.features) == bool(self.of):
            raise ProgramError(
                "generated prompts take either an encoder or the interface of its features",
                ["set encoder=module", 'set features="vision.features"'],
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """The features, unless an encoder computes them."""
        return (self.features,) if self.features else ()

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for float images [B, C, H, W] and, without encoder, features [B, f].

        Raises:
            InterfaceError: the value is not floating point, or not images of fixed size.
            ProgramError: the encoder is missing, or has more features than fit the planes.
        """
        value, where = context.value, context.where
        require_floats(value, where)
        shape = require_axes(value, 3, where, "images [B, C, H, W]")
        encoder = None if self.features else self._frozen(where)
        if encoder is None:
            (vector,) = context.read
        else:
            with torch.no_grad():
                images = torch.zeros((2, *shape), dtype=value.dtype, device=value.device)
                vector = encoder(images)
        require_floats(vector, where)
        stages, base = _stages(shape[1:])
        (features,) = require_axes(vector, 1, f"{where}, features", "one vector per example")
        trigger = self.channels * base[0] * base[1] - features
        if trigger < 1:
            raise ProgramError(
                f"{where}: {self.channels} planes of {base[0]} by {base[1]} are too small for "
                f"{features} features and a trigger",
                [f"set channels={-(-features // (base[0] * base[1])) + 1} or more"],
            )
        module = _Coordinator(self, encoder, trigger, stages, base, shape[0])
        restart(module.decoder, context.generator)
        nn.init.uniform_(module.trigger, 0.0, 0.1, generator=context.generator)
        return module

    def _frozen(self, where: str) -> Frozen:
        if self.encoder is None:
            raise ProgramError(
                f"{where}: the encoder of {self.label} ({self.of}) is not saved in the file",
                [f'call gp.load(path, graph, modules={{"{self.label}": {self.of}(...)}})'],
            )
        return Frozen(self.encoder)


def _stages(size: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Number of times the size is halved, and the resulting size."""
    stages = 0
    while stages < _MAX_STAGES and not any(s % 2 for s in size) and min(size) >= 2 * _MIN_SIDE:
        size, stages = tuple(side // 2 for side in size), stages + 1
    return stages, size


class _Coordinator(nn.Module):
    """Forward: x [B, C, H, W], and features [B, f] without encoder -> [B, C, H, W]."""

    def __init__(
        self,
        spec: Generated,
        encoder: nn.Module | None,
        trigger: int,
        stages: int,
        base: tuple[int, ...],
        channels: int,
    ) -> None:
        super().__init__()
        self.spec, self.base = dataclasses.replace(spec, encoder=None), base
        self.encoder = encoder
        self.trigger = nn.Parameter(torch.empty(trigger))
        layers: list[list[nn.Module]] = [
            [
                nn.ConvTranspose2d(n := spec.channels, n, 2, 2, groups=n, bias=False),
                nn.Conv2d(n, n, 1, bias=False),
                nn.BatchNorm2d(n),
                nn.GELU(),
            ]
            for _ in range(stages)
        ]
        last = nn.Conv2d(spec.channels, channels, 1)
        self.decoder = nn.Sequential(*itertools.chain(*layers), last)

    def forward(self, x: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """Generate the pattern and add it."""
        if features is None:
            assert self.encoder is not None
            features = self.encoder(x)
        rows = features.float()
        trigger = self.trigger.expand(rows.shape[0], -1)
        planes = torch.cat([rows, trigger], 1).unflatten(1, (self.spec.channels, *self.base))
        prompt: torch.Tensor = self.decoder(planes) * self.spec.strength
        result = x + prompt.to(x.dtype)
        return result if self.spec.clip is None else result.clamp(*self.spec.clip)
