"""The Open Inference Protocol, version 2, as Triton and KServe speak it over HTTP.

Each program is a model of its own, beside the model that has the server's name; ``program`` among
the parameters, or as an input of strings, names the program of each row. Extensions: tensors as
bytes, classification, and the index of the repository.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from graphprog.serve.limits import RequestError
from graphprog.serve.protocols import tensors
from graphprog.serve.rows import RowModel

_LENGTH = "Inference-Header-Content-Length"
_PROGRAM = "program"


class TensorIn(BaseModel):
    """An input: data in JSON, or ``binary_data_size`` among its parameters."""

    name: str
    shape: list[NonNegativeInt] = Field(max_length=16)
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class TensorOut(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """A request for inference."""

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[TensorIn] = Field(max_length=256)
    outputs: list[TensorOut] | None = Field(None, max_length=256)


def router(model: RowModel) -> APIRouter:
    """Return the routes ``/v2/models/...`` and ``/v2/repository/index``."""
    routes = APIRouter(tags=["inference"])

    @routes.get("/v2/models/{name}")
    @routes.get("/v2/models/{name}/versions/1")
    async def described(name: str) -> dict[str, Any]:
        """Name the inputs and outputs of a model."""
        return metadata(model, name)

    @routes.get("/v2/models/{name}/ready")
    @routes.get("/v2/models/{name}/versions/1/ready")
    async def ready(name: str) -> dict[str, Any]:
        """Say that a model can be asked for."""
        program_of(model, name)
        return {"name": name, "ready": True}

    @routes.post("/v2/repository/index")
    async def index() -> list[dict[str, str]]:
        """List the models."""
        names = [model.name, *(info.name for info in model.programs)]
        return [{"name": one, "version": "1", "state": "READY"} for one in names]

    @routes.post("/v2/models/{name}/infer")
    @routes.post("/v2/models/{name}/versions/1/infer")
    async def infer(name: str, request: Request) -> Response:
        """Run a batch."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RequestError(415, "compressed requests are not read")
        body = await request.body()
        length = request.headers.get(_LENGTH)
        asked, values = await asyncio.to_thread(_parsed, body, length)
        programs = _programs(model, name, asked, values)
        specs = model.session_of(programs[0] if programs else None).inputs
        if values.keys() != {spec.name for spec in specs}:
            raise RequestError(400, f"the model takes {', '.join(map(str, specs))}")
        inputs = [values[spec.name] for spec in specs]
        wanted = asked.outputs or []
        outputs = tuple(dict.fromkeys(one.name for one in wanted)) or None
        found = await model.run(inputs, programs, outputs)
        names = outputs or model.session_of(programs[0] if programs else None).document.outputs
        return _response(model, name, asked, programs, dict(zip(names, found, strict=True)))

    return routes


def program_of(model: RowModel, name: str) -> str | None:
    """Return the program that a model's name means; None for the model itself.

    Raises:
        RequestError: there is neither (404).
    """
    return None if name == model.name else model.program(name).name


def metadata(model: RowModel, name: str) -> dict[str, Any]:
    """Return what a model takes and returns."""
    program = program_of(model, name)
    if program is None and model.programs and not hasattr(model.session, "document"):
        program = model.programs[0].name  # a folder of several kinds: those of its first
    session = model.session_of(program)
    inputs = [
        (one.name, str(one.dtype).removeprefix("torch."), one.shape) for one in session.inputs
    ]
    outputs = []
    for output, text in session.output_types.items():
        kind, _, sizes = text.removesuffix("]").partition("[")
        outputs.append((output, kind, [int(s) if s.isdigit() else s for s in sizes.split(",")]))
    return {
        "name": name,
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [_entry(*one) for one in inputs],
        "outputs": [_entry(*one) for one in outputs],
    }


def _entry(name: str, kind: str, shape: Sequence[int | str]) -> dict[str, Any]:
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    return {"name": name, "datatype": tensors.NAMES.get(kind, kind.upper()), "shape": sizes}


def _parsed(body: bytes, length: str | None) -> tuple[InferRequest, dict[str, Any]]:
    """Return a request, and its tensors by name."""
    if length is not None and not (length.isdigit() and int(length) <= len(body)):
        raise RequestError(400, f"{_LENGTH} {length!r:.20} is not a length within the body")
    end = len(body) if length is None else int(length)
    try:
        asked = InferRequest.model_validate_json(body[:end])
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:8]]
        raise RequestError(400, "\n".join(lines)) from error
    rest, values = memoryview(body)[end:], dict[str, Any]()
    for one in asked.inputs:
        if one.name in values:
            raise RequestError(400, f"input {one.name!r:.80} is given twice")
        if one.data is not None:
            values[one.name] = tensors.from_json(one.name, one.datatype, one.shape, one.data)
            continue
        size = one.parameters.get("binary_data_size")
        if type(size) is not int or not 0 <= size <= len(rest):
            raise RequestError(400, f"{one.name}: it has no data, and {size!r:.20} bytes of them")
        values[one.name] = tensors.from_bytes(one.name, one.datatype, one.shape, rest[:size])
        rest = rest[size:]
    if len(rest):
        raise RequestError(400, f"{len(rest)} bytes of the body belong to no input")
    return asked, values


def _programs(
    model: RowModel, name: str, asked: InferRequest, values: dict[str, Any]
) -> list[str] | None:
    """Return the names of the programs of a request: one, or one per row."""
    own = program_of(model, name)
    given: Any = asked.parameters.get(_PROGRAM)
    if isinstance(values.get(_PROGRAM), list):
        given = values.pop(_PROGRAM)
    if given is None:
        return None if own is None else [own]
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise RequestError(400, "program is not a name, or a list of names")
    if own is not None and set(names) != {own}:
        raise RequestError(400, f"the model is {own!r}, but the program another")
    return names


def _response(
    model: RowModel,
    name: str,
    asked: InferRequest,
    programs: list[str] | None,
    found: dict[str, np.ndarray],
) -> Response:
    """Return outputs in JSON, or as bytes after it where they were asked for so."""
    binary = asked.parameters.get("binary_data_output") is True
    wanted = asked.outputs or [TensorOut(name=one) for one in found]
    entries, parts = [], []
    for one in wanted:
        array = found[one.name]
        entry: dict[str, Any] = {"name": one.name}
        classes = one.parameters.get("classification")
        texts = None
        if type(classes) is int and classes > 0:
            texts = _classified(model, programs, array, classes)
            entry |= {"datatype": "BYTES", "shape": [len(array), len(texts) // len(array)]}
        else:
            kind = tensors.NAMES.get(array.dtype.name, array.dtype.name.upper())
            entry |= {"datatype": kind, "shape": list(array.shape)}
        if one.parameters.get("binary_data", binary):
            data = tensors.strings_to_bytes(texts) if texts is not None else array.tobytes()
            entry["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            entry["data"] = texts if texts is not None else tensors.to_json(array)
        entries.append(entry)
    head: dict[str, Any] = {"model_name": name, "model_version": "1", "outputs": entries}
    if asked.id is not None:
        head["id"] = asked.id
    text = json.dumps(head, ensure_ascii=False, allow_nan=False).encode()
    if not parts:
        return Response(text, media_type="application/json")
    headers = {_LENGTH: str(len(text))}
    return Response(b"".join([text, *parts]), 200, headers, "application/octet-stream")


def _classified(
    model: RowModel, programs: list[str] | None, array: np.ndarray, classes: int
) -> list[str]:
    """Return the best classes of each row as ``score:number:label``."""
    if array.ndim != 2:
        raise RequestError(400, "only logits [rows, classes] can be classified")
    names: list[str | None] = [*programs] if programs else [None]
    names = names * len(array) if len(names) == 1 else names
    found = []
    for name, row in zip(names, array, strict=True):
        own = model.session_of(None).labels if name is None else model.program(name).labels
        for number in np.argsort(-row, kind="stable")[:classes]:
            label = f":{own[number]}" if number < len(own) else ""
            found.append(f"{row[number]:f}:{number}{label}")
    return found
