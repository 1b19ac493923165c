"""Which inputs have an axis of rows."""

from __future__ import annotations

import pytest
import torch

from graphprog.ir.inputs import InputSpec, row_inputs

FLOAT = torch.float32


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([("B", "S"), ("B", "S")], [True, True]),
        ([("B", "S"), ("T", "S")], [True, True]),  # a mask that is only broadcast to the tokens
        ([("B", 3, 8, 8), ()], [True, False]),
        ([("B", "S"), ("M", 4)], [True, False]),
        ([(2, "S"), (2, "S")], [False, False]),
    ],
)
def test_a_mask_of_the_same_length_has_the_same_rows(
    shapes: list[tuple[int | str, ...]], expected: list[bool]
) -> None:
    specs = [InputSpec(str(n), shape, FLOAT) for n, shape in enumerate(shapes)]
    assert row_inputs(specs) == expected
