"""Programs for the residual network of the zoo."""

from __future__ import annotations

import torch

import graphprog as gp
from tests.models.zoo import captured

PROGRAMS = {
    "additive": gp.Program(
        [gp.Additive(mask=gp.masks.border(inner=8), squash="tanh", clip=(-1.0, 1.0))]
    ),
    "steering": gp.Program([gp.Additive(at="hidden[*]", value=gp.Learnable(shape=(8, 1, 1)))]),
    "resize-pad": gp.Program(
        [gp.ResizePad(shape=(1, 5, 5), size=9), gp.Additive(mask=gp.masks.border(inner=9))],
        contract=gp.Contract("unit", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
    ),
    "align": gp.Program([gp.Additive()], align=gp.LinearHead(4, at="features")),
}


MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def unit_task(classes: int = 4) -> gp.ReprogrammedModel:
    return gp.compile(
        captured("residual")[1],
        gp.Program(
            [gp.Additive()],
            align=gp.RandomMap(classes=classes),
            contract=gp.Contract("unit", mean=MEAN, std=STD),
        ),
    )


IMAGES = torch.rand(2, 3, 16, 16)
