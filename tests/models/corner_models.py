"""Small hand-written models, each with one thing that is hard to capture or to rewrite."""

from __future__ import annotations

import torch
from torch import nn


def plain_cnn() -> nn.Module:
    """No blocks, no residuals, in-place activations."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 20),
    )


class Residual(nn.Module):
    """Convolution, batch norm, in-place ReLU after an in-place addition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        y += x
        return self.relu(y)


class ResidualNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(Residual(8) for _ in range(3)))
        self.head = nn.Linear(8, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Reused(nn.Module):
    """One module called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        x = x + self.layer(x)
        return self.head(self.layer(x))


class Identities(nn.Module):
    """Modules that compute nothing, on the residual stream and on a branch of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.stream = nn.Identity()
        self.branch = nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.second = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stream(self.first(x))
        y = torch.relu(self.second(self.drop(self.branch(x))))
        return self.head(x * y)


class Splitter(nn.Module):
    def forward(self, x: torch.Tensor, *, gain: torch.Tensor) -> tuple[torch.Tensor, dict]:
        return x * gain, {"sum": x + gain, "pair": [x - gain, 3]}


class TupleParts(nn.Module):
    """A part that takes keywords and returns a tree; the model returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Linear(8, 8)
        self.split = Splitter()
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        product, rest = self.split(x, gain=self.gain(x))
        return self.head(product + rest["sum"]), rest["pair"][0].sum(-1)


class DictOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.tanh(self.body(x))
        return {"logits": self.head(hidden), "hidden": hidden}


class ReturnsInput(nn.Module):
    """Returns an input as it is, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        return self.body(x), x, 7


class InPlace(nn.Module):
    """Writes into whole values, some of which are read before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        before = y * 2
        z = self.act(y)
        z.add_(1.5)
        return before + y + z.sin_()


class InPlaceView(nn.Module):
    """Writes through a view of a value that is read afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.body(x))
        y[:, 0] = 0
        return self.head(y)


class InPlaceChunk(nn.Module):
    """Writes into one of several views that one operation returned."""

    def __init__(self) -> None:
        super().__init__()
        # autograd forbids such a write where gradients flow
        self.body = nn.Linear(8, 8).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        left, right = y.chunk(2, dim=1)
        left.add_(right)
        return y


class InPlaceAfterDropout(nn.Module):
    """Dropout that is off returns its very argument, into which is written."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        z = self.drop(y)
        z += 1
        return y * z


class InPlaceHalf(nn.Module):
    """Writes single precision into half precision, which stays half."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        half = y.to(torch.bfloat16) * 2
        half += y / 3
        return half.sum(-1, keepdim=True) * y


def small() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return ResidualNet().eval(), torch.randn(3, 3, 16, 16)


def exported(model: nn.Module, x: torch.Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


class Call(nn.Module):
    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        return ids.float() * mask + (0 if bias is None else bias)
