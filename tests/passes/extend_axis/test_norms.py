"""The order of a norm and the place of an axis are not lengths, whatever their value."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import PassError

LENGTH = 2
NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "over two axes": lambda x: x / torch.linalg.vector_norm(x, 2, [1, 2])[:, None, None],
    "over the longer axis": lambda x: functional.normalize(x, p=2, dim=1),
    "of a slice": lambda x: torch.renorm(x, 2, 0, 0.5),
    "along the width": lambda x: x.cumsum(2).flip([2]).unfold(2, 4, 1)[..., 0, :],
}


class Normed(nn.Module):
    def __init__(self, norm: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.norm = norm
        self.before, self.after = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.norm(self.before(x)))


@pytest.mark.parametrize("name", NORMS)
def test_the_order_of_a_norm_is_not_the_length_of_the_axis(name: str) -> None:
    torch.manual_seed(0)
    model = Normed(NORMS[name]).eval()
    x, entry = torch.rand(3, LENGTH, 3), torch.rand(1, 4)
    graph = gp.capture(model, (x,))
    part = gp.Concatenative(at="before:out", axis=1, length=1, value=gp.Fixed(entry))
    found = gp.compile(graph, gp.Program([part]))(x)
    longer = torch.cat([entry.expand(3, 1, 4), model.before(x)], 1)
    torch.testing.assert_close(found, model.after(NORMS[name](longer)))


def test_the_number_of_largest_entries_may_be_the_length() -> None:
    model = Normed(lambda x: x * x.topk(2, 1).values.sum(1, keepdim=True)).eval()
    graph = gp.capture(model, (torch.rand(3, LENGTH, 3),))
    with pytest.raises(PassError, match=r"the number 2 stands for the length.*topk"):
        gp.compile(graph, gp.Program([gp.Concatenative(at="before:out", axis=1, length=1)]))


def test_refusals_call_sizes_as_tables_do() -> None:
    graph = gp.capture(Normed(lambda x: x**2).eval(), (torch.rand(3, LENGTH, 3),))
    assert graph.interfaces().resolve("before:out").shape == ("B", 2, 4)
    with pytest.raises(PassError, match=r"the number 2 stands for the length") as failure:
        gp.compile(graph, gp.Program([gp.Concatenative(at="before:out", axis=1, length=1)]))
    assert "pow.Tensor_Scalar (B, 2, 4)" in str(failure.value)
    assert failure.value.what in str(failure.value)
