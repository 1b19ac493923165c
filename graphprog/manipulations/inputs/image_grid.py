"""Image grids: in-context learning of vision models, with examples and a query on one canvas."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from graphprog.alignments.slice import Slice
from graphprog.errors import ProgramError
from graphprog.manipulations.inputs.resize_pad import ResizePad, placement
from graphprog.spec.checks import require_integer
from graphprog.spec.registry import spec
from graphprog.values.base import Fixed
from graphprog.values.context import BuildContext


@spec("image-grid")
@dataclasses.dataclass(frozen=True)
class ImageGrid(ResizePad):
    """Image grid of input and answer pairs, with the query beside a blank cell below them.

    A model that inpaints, or maps images to images, then writes its answer into the blank cell (Bar
    et al., NeurIPS 2022), and the answer is cropped from its output:
    ``gp.Program([grid], align=grid.answer())``. The reprogrammed model takes only the query.

    Attributes:
        shape: shape of the query, ``(channels, height, width)``.
        size: size of a cell, to which query and examples are resized; None keeps the query's size.
        interpolation: see :class:`ResizePad`.
        fill: value of the blank cell and of the canvas outside the grid, for each channel; empty is
            zero.
        examples: pairs [n, 2, channels, height, width] of inputs and their answers.
        gap: pixels between cells.

    Example:
        >>> pairs = torch.rand(1, 2, 3, 8, 8)  # one image and its answer
        >>> grid = gp.ImageGrid(shape=(3, 8, 8), examples=pairs)
        >>> task = gp.compile(graph, gp.Program([grid]))
    """

    examples: Fixed = dataclasses.field(kw_only=True)
    gap: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.examples
        if isinstance(given, torch.Tensor):
            object.__setattr__(self, "examples", Fixed(given))
        elif not isinstance(given, Fixed):
            raise ProgramError(
                f"{self.kind}: examples must be a tensor, not a {type(given).__name__}"
            )
        require_integer(self.kind, "gap", self.gap, 0)
        pairs = self.examples.tensor
        if len(self.shape) != 3 or pairs.ndim != 5 or pairs.shape[1] != 2 or len(pairs) == 0:
            raise ProgramError(
                f"{self.kind}: examples of shape {list(pairs.shape)} for a query of {self.shape} "
                "must have shape [n, 2, channels, height, width]",
                ["call torch.stack([torch.stack([image, answer]), ...])"],
            )

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the first pixel of the answer."""
        height, width = self.placed
        return len(self.examples.tensor) * (height + self.gap), width + self.gap

    def answer(self, at: str = "logits") -> Slice:
        """Make the alignment that crops the answer from an output of canvas size [B, C, H, W]."""
        (top, left), (height, width) = self.corner, self.placed
        return Slice({2: (top, top + height), 3: (left, left + width)}, at=at)  # type: ignore[arg-type]

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module from [B, *shape] to the shape of the value.

        Raises:
            ProgramError: the canvas is too small, of another rank, or has other channels.
        """
        value, where = context.value, context.where
        sizes: tuple[int | torch.SymInt, ...] = tuple(value.shape[1:])
        if len(sizes) != 3 or any(isinstance(size, torch.SymInt) for size in sizes):
            raise ProgramError(
                f"{self.kind}: {where} of shape {list(value.shape)} is not a canvas of fixed size",
                ["capture the source with dynamic_axes for the batch only"],
            )
        channels, height, width = (int(size) for size in sizes)
        (top, left), cell = self.corner, (channels, *self.placed)
        if top + cell[1] > height or left + cell[2] > width:
            raise ProgramError(
                f"{self.kind}: a grid of {top + cell[1]} by {left + cell[2]} pixels does not fit "
                f"the {height} by {width} of {where}",
                ["set a smaller size=", "give fewer examples", "set gap=0"],
            )
        pairs = self.examples.tensor
        if {self.shape[0], pairs.shape[2]} - {1, channels} or len(self.fill) not in (
            0,
            1,
            channels,
        ):
            raise ProgramError(
                f"{self.kind}: {where} has {channels} channels, but the query has {self.shape[0]}, "
                f"the examples {pairs.shape[2]}, and fill {len(self.fill)}",
                [f"give 1 or {channels} channels"],
            )
        bare = dataclasses.replace(self, size=self.placed, fill=())
        shown = placement(dataclasses.replace(bare, shape=tuple(pairs.shape[2:])), cell)
        board = torch.zeros(channels, height, width)
        board += torch.tensor(self.fill or (0.0,)).reshape(-1, 1, 1)
        for row, pair in enumerate(pairs.to(torch.float32)):
            for column, image in enumerate(shown(pair)):
                y, x = row * (cell[1] + self.gap), column * (cell[2] + self.gap)
                board[:, y : y + cell[1], x : x + cell[2]] = image
        return _Laid(placement(bare, cell), board.to(value.dtype), top)


class _Laid(nn.Module):
    """Forward: [B, *query shape] -> [B, *canvas]."""

    board: torch.Tensor

    def __init__(self, cell: nn.Module, board: torch.Tensor, top: int) -> None:
        super().__init__()
        self.cell = cell
        self.register_buffer("board", board, persistent=False)
        self.top = top

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Resize the query and put it into its cell of the board."""
        query = self.cell(x)
        height, width = query.shape[2:]
        board = self.board.expand(x.shape[0], *self.board.shape)
        end = self.top + height
        row = torch.cat([query, board[:, :, self.top : end, width:]], 3)
        return torch.cat([board[:, :, : self.top], row, board[:, :, end:]], 2)
