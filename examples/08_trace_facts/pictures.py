"""One picture: where facts are, by patching and by attribution, and which heads move them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import graphprog as gp
from graphprog.utils.plots.figures import figure, keep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOKENS = ("The", "capital", "of", "France …", "is")


def draw(
    measured: gp.instruments.EffectMap,
    estimated: gp.instruments.EffectMap,
    heads: gp.instruments.EffectMap,
    estimated_heads: gp.instruments.EffectMap,
    path: Path,
) -> None:
    """Draw both maps, and the effects of some heads at the last position.

    Args:
        measured: effect of each block and position, by patching.
        estimated: the same, by attribution.
        heads: effects of some heads, by patching.
        estimated_heads: the same, by attribution.
        path: of the picture.
    """
    drawing, (left, middle, right) = figure(3, 4.6, 5.2)
    for axis, title, one in (
        (left, "patched: what the value restores", measured),
        (middle, "estimated by attribution", estimated),
    ):
        image = show(axis, one)
        axis.set_title(title)
    drawing.colorbar(image, ax=[left, middle], label="share of the answer restored", shrink=0.8)
    numbers = range(len(heads.names))
    for values, offset, color, label in (
        (heads, -0.2, "tab:blue", "patched"),
        (estimated_heads, 0.2, "tab:orange", "attribution"),
    ):
        lengths = values.effects[:, -1].tolist()
        places = [number + offset for number in numbers]
        right.barh(places, lengths, height=0.38, color=color, label=label)
    right.set_yticks(numbers, [short(name) for name in heads.names])
    right.invert_yaxis()
    right.axvline(0, color="0.3", linewidth=0.8)
    right.set_xlabel("share of the answer restored")
    right.set_title("heads of attention, at the last token")
    right.legend(frameon=False, loc="lower right")
    right.spines[["top", "right"]].set_visible(False)
    keep(drawing, path)


def show(axis: Axes, effects: gp.instruments.EffectMap) -> object:
    """A map, the first block below; all maps have the same colors."""
    values = effects.effects.numpy()
    image = axis.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", origin="lower")
    axis.set_xticks(range(values.shape[1]), TOKENS, rotation=30, ha="right")
    axis.set_ylabel("after block")
    return image


def short(name: str) -> str:
    """``attention[23].heads[4]`` as ``block 23, head 4``."""
    block, head = (part.partition("]")[0] for part in name.split("[")[1:])
    return f"block {block}, head {head}"
