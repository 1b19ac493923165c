"""Models that a function of the user makes, with and without a file of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import CaptureError, FileError

HERE = __name__


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 4)

    def forward(self, ids: torch.Tensor, scale: torch.Tensor | None = None) -> Any:
        values = self.table(ids)
        return values if scale is None else values * scale


def bare() -> nn.Module:
    return nn.Linear(4, 3)


def with_example() -> tuple[Any, ...]:
    return nn.Linear(4, 3), torch.zeros(2, 4)


def with_axes() -> tuple[Any, ...]:
    ids, scale = torch.zeros(2, 5, dtype=torch.int64), torch.ones(())
    return Words(), [ids], {"scale": scale}, {"ids": {0: "batch", 1: "length"}}


def with_hints() -> gp.sources.Source:
    return gp.sources.Source(
        nn.Linear(4, 3), (torch.zeros(2, 4),), hints={"labels": "abc", "mean": 0.5}
    )


def a_number() -> int:
    return 3


def failing() -> nn.Module:
    raise ZeroDivisionError("of the user")


def test_a_function_returns_a_model_and_one_call_of_it() -> None:
    graph = gp.capture(f"{HERE}:with_example")
    assert graph(torch.zeros(7, 4)).shape == (7, 3)
    wide = gp.capture(f"{HERE}:with_axes")
    assert wide(torch.zeros(3, 9, dtype=torch.int64), scale=torch.ones(())).shape == (3, 9, 4)


def test_what_is_given_comes_before_what_the_source_says() -> None:
    graph = gp.capture(f"{HERE}:bare", (torch.zeros(2, 6, 4),))
    assert graph(torch.zeros(3, 6, 4)).shape == (3, 6, 3)
    axes = {"ids": {0: "batch"}}
    narrow = gp.capture(f"{HERE}:with_axes", dynamic_axes=axes, hints={"labels": ["x"]})
    assert narrow.placeholders[0].meta["val"].shape[1] == 5
    assert narrow.hints == {"labels": ("x",)}


def test_hints_of_a_source_are_checked() -> None:
    with pytest.raises(gp.errors.ProgramError, match="hint 'labels' is 'abc'"):
        gp.capture(f"{HERE}:with_hints")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bare", "bare has no example of its inputs"),
        ("a_number", "a_number returned 3"),
        ("with_exampl", r"test_factory has no with_exampl; did you mean with_example\?"),
    ],
)
def test_a_factory_that_makes_no_model_is_refused(name: str, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        gp.capture(f"{HERE}:{name}")


def test_an_absent_module_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"there is no module torch\.nowhere"):
        gp.capture("torch.nowhere:make")


def test_an_error_in_the_factory_is_the_users() -> None:
    with pytest.raises(ZeroDivisionError, match="of the user"):
        gp.capture(f"{HERE}:failing")


def test_a_file_of_weights_goes_into_the_model_of_a_factory(tmp_path: Path) -> None:
    wanted = nn.Linear(4, 3)
    path = tmp_path / "some weights.safetensors"
    safetensors.torch.save_file(wanted.state_dict(), path)
    x = torch.rand(5, 4)
    assert torch.equal(gp.capture(f"{path}#{HERE}:with_example")(x), wanted(x))
    with pytest.raises(CaptureError, match="needs the function that makes its model"):
        gp.capture(str(path))
    with pytest.raises(CaptureError, match="holds weights of another model"):
        gp.capture(f"{path}#{HERE}:with_axes")
    path.write_bytes(b"other")
    with pytest.raises(FileError, match=r"not a \.safetensors file"):
        gp.capture(f"{path}#{HERE}:with_example")
    with pytest.raises(FileError, match="no such file"):
        gp.capture(f"absent.safetensors#{HERE}:with_example")
