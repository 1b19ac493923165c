"""Methods for images that add one learned pattern to all of them."""

from __future__ import annotations

from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.inputs.resize_pad import ResizePad
from graphprog.manipulations.modules.additive import Additive
from graphprog.methods.records import Record, method
from graphprog.values.base import Learnable
from graphprog.values.masks import border, full, patch

Parts = tuple[Manipulation, ...]
_ADAM = "Adam, learning rate 0.01, times 0.1 at 50 % and 72 % of 200 epochs"
_CLIP = "SGD, learning rate 40, momentum 0.9, cosine, batches of 256, 1000 epochs (CLIP)"
_BORDER = "C·(H² − h²) for images of side h on a canvas of side H"


def _padded(shape: tuple[int, ...], size: int | None, squash: str) -> Parts:
    """Return an example on a canvas, and a pattern around it."""
    inner = shape[1:] if size is None else (size,) * len(shape[1:])
    frame = Additive(mask=border(inner=inner), squash=squash, name="frame")
    return (ResizePad(shape=shape, size=size), frame)


@method(
    Record(
        "Elsayed et al.",
        "ICLR 2019",
        "input",
        "additive",
        "statistical",
        _BORDER,
        "Adam, λ‖W‖² added to the loss",
        align="FixedMap(classes)",
    )
)
def adversarial_reprogramming(shape: tuple[int, ...], size: int | None = None) -> Parts:
    """Adversarial reprogramming of Elsayed et al., ICLR 2019: the tanh of W around an image.

    Pixels lie in [-1, 1]. Classes are the first ones of the source.

    Args:
        shape: shape of a target example.
        size: side length to which it is resized; None keeps its size.

    Example:
        >>> parts = gp.methods.adversarial_reprogramming(shape=(1, 8, 8))
        >>> task = gp.compile(graph, gp.Program(parts, align=gp.FixedMap(classes=5)))
    """
    return _padded(shape, size, "tanh")


@method(
    Record(
        "Chen et al.",
        "CVPR 2023",
        "input",
        "additive",
        "statistical",
        _BORDER,
        _ADAM,
        align="IterativeMap(classes)",
    )
)
def ilm_vp(shape: tuple[int, ...], size: int | None = None) -> Parts:
    """ILM-VP of Chen et al., CVPR 2023: a frame, and a label mapping counted every epoch.

    The sigmoid of W is the frame, in [0, 1], before normalization.

    Args:
        shape: shape of a target example.
        size: side length to which it is resized; None keeps its size.

    Example:
        >>> parts = gp.methods.ilm_vp(shape=(1, 8, 8), size=12)
        >>> task = gp.compile(graph, gp.Program(parts, align=gp.IterativeMap(classes=5)))
    """
    return _padded(shape, size, "sigmoid")


@method(
    Record(
        "Chen et al.",
        "CVPR 2023",
        "input",
        "additive",
        "statistical",
        _BORDER,
        _ADAM,
        align="FrequencyMap(classes)",
    )
)
def flm_vp(shape: tuple[int, ...], size: int | None = None) -> Parts:
    """FLM-VP, a baseline of Chen et al., CVPR 2023: a frame, and a label mapping counted once.

    Args:
        shape: shape of a target example.
        size: side length to which it is resized; None keeps its size.

    Example:
        >>> parts = gp.methods.flm_vp(shape=(1, 8, 8), size=12)
        >>> task = gp.compile(graph, gp.Program(parts, align=gp.FrequencyMap(classes=5)))
    """
    return _padded(shape, size, "sigmoid")


@method(
    Record(
        "Chen et al.",
        "CVPR 2023",
        "input",
        "additive",
        "statistical",
        _BORDER,
        _ADAM,
        align="RandomMap(classes)",
    )
)
def rlm_vp(shape: tuple[int, ...], size: int | None = None) -> Parts:
    """RLM-VP, a baseline of Chen et al., CVPR 2023: a frame, and a random label mapping.

    Args:
        shape: shape of a target example.
        size: side length to which it is resized; None keeps its size.

    Example:
        >>> parts = gp.methods.rlm_vp(shape=(1, 8, 8), size=12)
        >>> task = gp.compile(graph, gp.Program(parts, align=gp.RandomMap(classes=5)))
    """
    return _padded(shape, size, "sigmoid")


@method(
    Record(
        "Cai et al.",
        "NeurIPS 2024",
        "input",
        "additive",
        "statistical",
        _BORDER,
        _ADAM.replace("200 epochs", "200 epochs, batches of 256"),
        align="BayesianMap(classes)",
    )
)
def blm(shape: tuple[int, ...], size: int | None = None) -> Parts:
    """BLM of Cai et al., NeurIPS 2024: a frame, and a Bayesian label mapping.

    For BLM+ align with ``gp.BayesianMap(classes, top=...)`` as that class describes.

    Args:
        shape: shape of a target example.
        size: side length to which it is resized; None keeps its size.

    Example:
        >>> parts = gp.methods.blm(shape=(1, 8, 8), size=12)
        >>> task = gp.compile(graph, gp.Program(parts, align=gp.BayesianMap(classes=5)))
    """
    return _padded(shape, size, "sigmoid")


@method(
    Record(
        "Wu et al.",
        "2022",
        "input",
        "additive",
        "identity",
        _BORDER,
        "SGD, momentum 0.9; diverse inputs, and gradients divided by their norm",
    )
)
def evp(shape: tuple[int, ...], size: int = 164) -> Parts:
    """EVP of Wu et al., 2022: shrink the image, and learn what is around it.

    The paper also trains on augmented inputs and divides gradients by their norm, which are
    matters of training.

    Args:
        shape: shape of a target example.
        size: side length to which it is shrunk; 164 on a canvas of 224 is a border of 30.

    Example:
        >>> parts = gp.methods.evp(shape=(3, 16, 16), size=10)
        >>> task = gp.compile(graph, gp.Program(parts))
    """
    return _padded(shape, size, "none")


@method(
    Record(
        "Bahng et al.",
        "2022",
        "input",
        "additive",
        "identity",
        "C·(H² − (H − 2·p)²) for a frame of width p",
        _CLIP,
    )
)
def vp(width: int = 30, at: str = "input") -> tuple[Additive, ...]:
    """Visual prompting of Bahng et al., 2022: a frame added to the normalized image.

    Args:
        width: width of the frame; 30 on images of 224 is 69,840 numbers.
        at: interface of the images.

    Example:
        >>> task = gp.compile(graph, gp.Program(gp.methods.vp(width=3)))
    """
    value = Learnable("normal", 1.0)
    return (Additive(at=at, mask=border(width=width), value=value, name="frame"),)


@method(
    Record("Bahng et al.", "2022", "input", "additive", "identity", "C·p² for a patch of p", _CLIP)
)
def vp_patch(
    size: int = 30, corner: tuple[int, int] = (0, 0), at: str = "input"
) -> tuple[Additive, ...]:
    """Visual prompting with a fixed patch, of Bahng et al., 2022: added to the normalized image.

    Args:
        size: side length of the patch.
        corner: where it begins.
        at: interface of the images.

    Example:
        >>> task = gp.compile(graph, gp.Program(gp.methods.vp_patch(size=4)))
    """
    value = Learnable("normal", 1.0)
    return (Additive(at=at, mask=patch(size, corner), value=value, name="patch"),)


@method(
    Record(
        "Cai et al.",
        "ICML 2024",
        "input",
        "additive",
        "statistical",
        "C·H²",
        "Adam, learning rate 0.01, times 0.1 at epochs 100 and 145 of 200",
        align="IterativeMap(classes)",
    )
)
def full_pattern(shape: tuple[int, ...], size: int) -> Parts:
    """Full watermark, a baseline of Cai et al., ICML 2024: a pattern over the resized image.

    Args:
        shape: shape of a target example.
        size: side length of the canvas, to which it is resized.

    Example:
        >>> parts = gp.methods.full_pattern(shape=(3, 8, 8), size=16)
        >>> task = gp.compile(graph, gp.Program(parts, align=gp.IterativeMap(classes=5)))
    """
    return (ResizePad(shape=shape, size=size), Additive(mask=full(), name="pattern"))


@method(
    Record(
        "Cai et al.",
        "ICML 2024",
        "input",
        "additive",
        "statistical",
        "C·(H² − (H − 2·p)²) for a frame of width p",
        "Adam, learning rate 0.01, times 0.1 at epochs 100 and 145 of 200",
        align="IterativeMap(classes)",
    )
)
def frame_pattern(shape: tuple[int, ...], size: int, width: int) -> Parts:
    """Narrow and medium watermarks, baselines of Cai et al., ICML 2024: on the resized image.

    Args:
        shape: shape of a target example.
        size: side length of the canvas, to which it is resized.
        width: width of the frame; 28 is narrow and 56 medium on a canvas of 224.

    Example:
        >>> parts = gp.methods.frame_pattern(shape=(3, 8, 8), size=16, width=2)
        >>> task = gp.compile(graph, gp.Program(parts, align=gp.IterativeMap(classes=5)))
    """
    frame = Additive(mask=border(width=width), name="pattern")
    return (ResizePad(shape=shape, size=size), frame)
