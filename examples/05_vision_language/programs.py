"""The programs that are compared: texts, pixels, and tokens in either tower or in both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import images
from clip import Clip

import graphprog as gp

TEMPLATES = (
    "a photo of a {name}",
    "a picture of the digit {name}",
    "the number {name}",
    "a small {name}",
    "a leaning left {name}",
    "a photo of a large white {name}",
)
DESCRIPTIONS = ("{shape}", "{shape} in black", "a photo of a {name} : {shape}")
CONTEXT = "a photo of a"
PIXELS = "input:pixel_values"
SCORES = "output:logits_per_image"


@dataclasses.dataclass(frozen=True)
class Method:
    """A program, and how it is trained; nothing is where ``lr`` is 0.

    Attributes:
        name: of the method.
        kind: of the three of the field, or the reference.
        program: the whole of it.
        lr: learning rate of Adam.
    """

    name: str
    kind: str
    program: gp.Program
    lr: float = 0.0


def methods(clip: Clip) -> list[Method]:
    """All programs for one captured model; every one of them takes pictures alone."""
    place = gp.ResizePad(shape=(3, images.SIDE, images.SIDE), size=clip.side, at=PIXELS)
    contract = gp.Contract("unit", clip.mean, clip.std, labels=images.NAMES)

    def program(
        *parts: gp.Manipulation, templates: Iterable[str] = TEMPLATES[:1], probe: bool = False
    ) -> gp.Program:
        texts = tuple(templates)
        bank = gp.ConstantInputs(clip.tokens(class_texts(texts)), name="texts")
        heads = gp.LinearHead(len(images.NAMES), at="output:image_embeds")
        align = heads if probe else by_class(len(texts))
        return gp.Program([place, *parts, bank], align, contract)

    pattern = gp.Additive(at=PIXELS, name="pattern")
    frame = gp.Additive(at=PIXELS, mask=gp.masks.border(width=clip.side // 8), name="frame")
    seen = gp.methods.vpt_shallow(tokens=8, at="vision.embedding")
    init = gp.initializers.Tokens(clip.words(CONTEXT))
    read = gp.Concatenative(at="tokens", length=len(init.ids), offset=1, init=init, name="context")
    return [
        Method("class names", "texts", program()),
        Method("templates", "texts", program(templates=TEMPLATES)),
        Method("descriptions", "texts", program(templates=DESCRIPTIONS)),
        Method("both of them", "texts", program(templates=TEMPLATES + DESCRIPTIONS)),
        Method("frame", "pixels", program(frame), 0.03),
        Method("whole image", "pixels", program(pattern), 0.03),
        Method("of the image", "tokens", program(*seen), 0.1),
        Method("of the text", "tokens", program(read, templates=["{name}"]), 0.03),
        Method("of both", "tokens", program(*seen, read, templates=["{name}"]), 0.03),
        Method("of both, coupled", "tokens", program(*gp.methods.maple(tokens=2, depth=2)), 0.03),
        Method("linear probe", "reference", program(probe=True), 0.1),
    ]


def class_texts(templates: Iterable[str]) -> list[str]:
    """The texts of every class, by template."""
    pairs = list(zip(images.NAMES, images.SHAPES, strict=True))
    return [text.format(name=name, shape=shape) for text in templates for name, shape in pairs]


def by_class(templates: int) -> gp.Alignment:
    """The score of a class is the mean of those of its texts."""
    count = len(images.NAMES)
    rows = tuple(tuple(range(label, templates * count, count)) for label in range(count))
    return gp.FixedMap(sources=rows, at=SCORES)
