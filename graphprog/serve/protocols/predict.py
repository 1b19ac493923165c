"""Predictions in plain JSON: images, texts or arrays in, labels and probabilities out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from graphprog.backends.onnxruntime.program_cache import probabilities_of
from graphprog.ir.inputs import InputSpec
from graphprog.serve.images import images_of
from graphprog.serve.limits import RequestError
from graphprog.serve.protocols.tensors import array_of
from graphprog.serve.rows import RowModel


class PredictRequest(BaseModel):
    """Rows of one kind, and the program of each."""

    model_config = ConfigDict(extra="forbid")

    images: list[str] | None = Field(None, description="Image files in base64.")
    texts: list[str | dict[str, str]] | None = Field(
        None, description="Texts, or the fields of the program's template."
    )
    arrays: list[Any] | dict[str, list[Any]] | None = Field(
        None, description="The array of the only input, or arrays by the name of the input."
    )
    program: str | list[str] | None = Field(
        None, description="Program of all rows, or of each; without it, that of the file."
    )
    probabilities: bool = Field(True, description="Return the probability of every label.")


class PredictedRow(BaseModel):
    """The answer for a row."""

    program: str | None
    label: str | None = Field(description="None where the program does not name its classes.")
    number: int = Field(description="Number of the class.")
    probability: float
    probabilities: dict[str, float] | None = Field(None, description="By label, or number.")


class PredictResponse(BaseModel):
    """The answers, in the order of the rows."""

    rows: list[PredictedRow]


def router(model: RowModel) -> APIRouter:
    """Return the route ``/v1/predict``."""
    routes = APIRouter(tags=["predictions"])

    @routes.post("/v1/predict")
    async def predict(asked: PredictRequest) -> PredictResponse:
        """Return the most probable label of every row."""
        programs = [asked.program] if isinstance(asked.program, str) else asked.program
        if programs == []:
            raise RequestError(400, "the list of programs is empty")
        first = None if programs is None else programs[0]
        for name in dict.fromkeys(programs or ()):
            model.program(name)
        labels = _labels(model, programs)
        session = model.session_of(first)
        inputs = await asyncio.to_thread(_inputs, model, session, asked, programs)
        logits = (await model.run(inputs, programs))[0]
        if logits.ndim != 2 or not np.issubdtype(logits.dtype, np.floating):
            raise RequestError(
                400, "the model returns no logits", [f"POST /v2/models/{model.name}/infer"]
            )
        names: list[str | None] = [*programs] if programs else [None]
        names = names * len(logits) if len(names) == 1 else names
        return PredictResponse(
            rows=[
                _row(name, labels[name], row, asked.probabilities)
                for name, row in zip(names, logits, strict=True)
            ]
        )

    return routes


def _labels(model: RowModel, programs: Sequence[str] | None) -> dict[str | None, tuple[str, ...]]:
    """Return the labels of each program; taken before it can be replaced."""
    if programs is None:
        return {None: model.session_of(None).labels}
    return {name: model.program(name).labels for name in programs}


def _inputs(
    model: RowModel, session: Any, asked: PredictRequest, programs: Sequence[str] | None
) -> list[Any]:
    """Return the inputs of the model, in order."""
    specs: Sequence[InputSpec] = session.inputs
    given = [one for one in (asked.images, asked.texts, asked.arrays) if one is not None]
    if len(given) != 1:
        raise RequestError(400, "a request has either images, texts or arrays")
    count = len(next(iter(given[0].values()), ())) if isinstance(given[0], dict) else len(given[0])
    if not 0 < count <= model.limits.batch:
        raise RequestError(
            413 if count else 400, f"{count} rows, but a request has 1 to {model.limits.batch}"
        )
    if asked.texts is not None:
        if model.reader is None:
            raise RequestError(400, "there is no tokenizer", ["send arrays of token ids"])
        return list(model.reader.inputs(asked.texts, programs))
    if isinstance(asked.arrays, dict):
        if asked.arrays.keys() != {spec.name for spec in specs}:
            raise RequestError(400, f"the model takes {', '.join(map(str, specs))}")
        return [_array(asked.arrays[spec.name], spec) for spec in specs]
    if len(specs) != 1:
        raise RequestError(
            400,
            f"the model takes {', '.join(map(str, specs))}",
            ["arrays by the name of the input"],
        )
    if asked.images is not None:
        return [images_of(asked.images, specs[0], session.contract, model.limits.pixels)]
    return [_array(asked.arrays, specs[0])]


def _array(data: Any, spec: InputSpec) -> torch.Tensor:
    kind: Any = np.float32 if spec.dtype.is_floating_point else np.int64
    if spec.dtype == torch.bool:
        kind = np.bool_
    return torch.from_numpy(array_of(data, spec.name, kind)).to(spec.dtype)


def _row(
    program: str | None, labels: tuple[str, ...], logits: np.ndarray, all_of_them: bool
) -> PredictedRow:
    names = labels or tuple(map(str, range(int(np.isfinite(logits).sum()))))
    (shares,) = probabilities_of([names], logits[None])
    best = next(iter(shares))
    return PredictedRow(
        program=program,
        label=best if labels else None,
        number=names.index(best),
        probability=shares[best],
        probabilities=shares if all_of_them else None,
    )
