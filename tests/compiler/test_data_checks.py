from __future__ import annotations

from typing import Any

import pytest
import torch

import graphprog as gp
from graphprog.errors import DataError
from tests.models.programs import IMAGES, unit_task
from tests.models.zoo import CASES, captured


def test_good_batches_pass() -> None:
    task = unit_task()
    task.check(task.input_example(3), torch.tensor([0, 3, 1]))
    task.check(task.input_example(1))


BROKEN = IMAGES.clone()
BROKEN[1, 0, 0, 0] = float("nan")


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (
            (IMAGES * 255,),
            None,
            r"(?s)unit space\) says \[0, 1\].*divide .* by 255",
        ),
        ((IMAGES - 1,), None, r"values lie in \[-"),
        ((BROKEN,), None, "row 1 of the batch has values that are not finite"),
        ((IMAGES / 0,), None, "row 0 of the batch has values that are not finite"),
        ((IMAGES[:, :1],), None, r"takes x: f32\[B,3,16,16\], but was given f32\[2,1,16,16\]"),
        ((IMAGES[0],), None, r"was given f32\[3,16,16\]"),
        ((IMAGES.double(),), None, r"was given f64\[2,3,16,16\]"),
        (((IMAGES * 255).byte(),), None, r"was given u8\[2,3,16,16\]"),
        ((IMAGES, IMAGES), None, "has 2 inputs, the graph takes x"),
        ((IMAGES.numpy(),), None, "must be a tensor, not ndarray"),
        ((IMAGES,), torch.tensor([0, 4]), r"(?s)labels lie in \[0, 4\].*4 classes.*classes=5"),
        ((IMAGES,), torch.tensor([-1, 0]), r"labels lie in \[-1, 0\]"),
        ((IMAGES,), torch.tensor([0.0, 1.0]), r"labels must be int64 \[2\]"),
        ((IMAGES,), torch.tensor([0]), r"labels must be int64 \[2\]"),
        ((IMAGES,), torch.zeros(2, 4, dtype=torch.int64), r"labels must be int64 \[2\]"),
    ],
)
def test_bad_batches_are_refused(inputs: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        unit_task().check(inputs, labels)


def test_running_on_the_wrong_shape_or_dtype_is_refused() -> None:
    task = unit_task()
    for value in (IMAGES[:, :, :8], IMAGES.double(), IMAGES.long()):
        with pytest.raises(DataError, match="the graph takes x"):
            task(value)
    ids = gp.compile(captured("transformer")[1], gp.Program())
    _, call = CASES["transformer"].call(2)
    with pytest.raises(DataError, match=r"takes input_ids: i64\[B,S\], but was given bf16"):
        ids(call["input_ids"].to(torch.bfloat16), call["attention_mask"])
