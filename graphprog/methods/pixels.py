"""Methods for images in which a small network computes the pattern."""

from __future__ import annotations

from torch import nn

from graphprog.manipulations.modules.generated import Generated
from graphprog.manipulations.modules.sample_mask import SampleMask
from graphprog.methods.records import Record, method


@method(
    Record(
        "Cai et al.",
        "ICML 2024",
        "input",
        "additive",
        "statistical",
        "C·H² and 26,499 of the network of 5 layers (102,339 of 6)",
        "Adam, learning rate 0.01, times 0.1 at epochs 100 and 145 of 200",
        align="IterativeMap(classes)",
    )
)
def smm(layers: int = 5, patch: int = 8, at: str = "input") -> tuple[SampleMask, ...]:
    """Sample-specific multi-channel masks of Cai et al., ICML 2024.

    The paper resizes images to the whole canvas, ``gp.ResizePad(shape, size=...)``, uses an
    :class:`~graphprog.IterativeMap`, and trains with Adam at a learning rate of 0.01, or 0.001 for
    the 6-layer network.

    Args:
        layers: 5 for ResNets, 6 for vision transformers.
        patch: side length of the squares of pixels that share a weight.
        at: interface of the images.

    Example:
        >>> task = gp.compile(graph, gp.Program(gp.methods.smm(layers=5, patch=8)))
        >>> assert torch.equal(task(images), graph(images))  # the pattern starts at zero
    """
    return (SampleMask(layers=layers, patch=patch, at=at),)


@method(
    Record(
        "Oh et al.",
        "CVPR 2023",
        "input",
        "additive",
        "structural",
        "those of the decoder and the trigger",
        "SPSA with momentum 0.9, without gradients of the source, 5000 epochs, batches of 128",
    )
)
def blackvip(
    encoder: nn.Module, clip: tuple[float, float] | None, strength: float = 1.0, at: str = "input"
) -> tuple[Generated, ...]:
    """BlackVIP of Oh et al., CVPR 2023: a decoder makes prompts from a frozen encoder's features.

    The paper trains it without gradients of the source.

    Args:
        encoder: maps images to features [B, f]; the paper uses the class token of a masked
            autoencoder.
        clip: bounds of valid pixels in the space of the program.
        strength: ε, from 0.2 to 1 in the paper, depending on the data set.
        at: interface of the images.

    Example:
        >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 8)).eval()
        >>> parts = gp.methods.blackvip(encoder, clip=(0, 1))
        >>> task = gp.compile(graph, gp.Program(parts))
    """
    return (Generated(clip, encoder, strength=strength, at=at),)
