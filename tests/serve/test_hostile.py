"""Requests that are wrong, large, slow or too many: a 4xx, and nobody else suffers."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

import graphprog as gp
from graphprog.ir.inputs import InputSpec
from graphprog.serve.images import images_of
from graphprog.serve.limits import RequestError
from tests.support.servers.server_process import ServerProcess, serving

pytestmark = pytest.mark.xdist_group("serve")

BODY = 300_000
ROW = np.full((1, 3, 16, 16), 0.5).tolist()
GOOD = {"arrays": ROW, "program": "birds"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def address(served: tuple[Path, Any]) -> Iterator[str]:
    folder, _ = served
    words = f"--programs . --max-batch 4 --timeout 2 --max-body {BODY}".split()
    with serving(folder, "model.onnx", *words) as (where, process):
        yield where
        assert process.process.poll() is None
        assert not [line for line in process.lines() if line["level"] == "error"]


def picture(width: int, height: int) -> str:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def predict(**body: Any) -> dict[str, Any]:
    return {"url": "/v1/predict", "json": {"program": "birds", **body}}


def infer(**tensor: Any) -> dict[str, Any]:
    entry = {"name": "input", "shape": [1, 3, 16, 16], "datatype": "FP32", **tensor}
    return {"url": "/v2/models/birds/infer", "json": {"inputs": [entry]}}


def as_bytes(head: Any, data: bytes, length: int | str | None = None) -> dict[str, Any]:
    text = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": str(len(text) if length is None else length)}
    return {"url": "/v2/models/birds/infer", "content": text + data, "headers": headers}


def header(**tensor: Any) -> dict[str, Any]:
    entry = {"name": "input", "shape": [1, 3, 16, 16], "datatype": "FP32", **tensor}
    return {"inputs": [entry]}


NAN = json.dumps(GOOD).replace("0.5", "NaN", 1)
BAD: dict[str, tuple[int, dict[str, Any]]] = {
    "another shape": (400, predict(arrays=[[1.0, 2.0]])),
    "lists of different lengths": (400, predict(arrays=[[1.0], [1.0, 2.0]])),
    "texts for numbers": (400, predict(arrays=[["a"]])),
    "numbers in texts": (400, predict(arrays=json.loads(json.dumps(ROW).replace("0.5", '"0.5"')))),
    "no rows": (400, predict(arrays=[])),
    "nothing": (400, predict()),
    "two kinds": (400, predict(arrays=ROW, images=[])),
    "an unknown field": (400, predict(arrays=ROW, programme="birds")),
    "an unknown program": (404, predict(arrays=ROW, program="fish")),
    "a path for a program": (404, predict(arrays=ROW, program="birds.safetensors")),
    "programs for other rows": (400, predict(arrays=ROW, program=["birds", "birds"])),
    "an unknown input": (400, predict(arrays={"x": ROW})),
    "texts without a tokenizer": (400, predict(texts=["a"])),
    "outside of the range": (400, predict(arrays=np.full((1, 3, 16, 16), 7.0).tolist())),
    "too many rows": (413, predict(arrays=[0.5] * 5)),
    "not base64": (400, predict(images=["$$$"])),
    "not an image": (400, predict(images=[base64.b64encode(b"GIF89a").decode()])),
    "half an image": (400, predict(images=[picture(400, 400)[: 4 * 20]])),
    "a picture that grows": (413, predict(images=[picture(9000, 9000)])),
    "NaN": (400, {"url": "/v1/predict", "content": NAN, "headers": JSON}),
    "an infinity": (400, {"url": "/v1/predict", "headers": JSON,
                          "content": json.dumps(GOOD).replace("0.5", "1e999", 1)}),
    "not JSON": (400, {"url": "/v1/predict", "content": b"{", "headers": JSON}),
    "not UTF-8": (400, {"url": "/v1/predict", "content": b"\xff\xfe{}", "headers": JSON}),
    "deep JSON": (400, {"url": "/v1/predict", "content": b"[" * 100_000, "headers": JSON}),
    "a giant body": (413, {"url": "/v1/predict", "content": b" " * (BODY + 1), "headers": JSON}),
    "giant numbers": (400, {"url": "/v1/predict", "headers": JSON,
                            "content": b'{"arrays": [' + b"9" * 10_000 + b"]}"}),
    "v2: another shape": (400, infer(data=[0.5])),
    "v2: a shape of another size": (400, infer(shape=[2, 3, 16, 16], data=ROW)),
    "v2: a giant shape": (400, infer(shape=[2**40, 2**40], data=ROW)),
    "v2: a negative shape": (400, infer(shape=[-1], data=ROW)),
    "v2: another type": (400, infer(datatype="INT64", data=ROW)),
    "v2: an unknown type": (400, infer(datatype="FP3", data=ROW)),
    "v2: an unknown input": (400, infer(name="x", data=ROW)),
    "v2: no data": (400, infer()),
    "v2: nothing": (400, {"url": "/v2/models/birds/infer", "content": b""}),
    "v2: an unknown model": (404, {**infer(data=ROW), "url": "/v2/models/fish/infer"}),
    "v2: bytes cut short": (400, as_bytes(header(parameters={"binary_data_size": 3072}), b"abc")),
    "v2: bytes of another size": (400, as_bytes(header(parameters={"binary_data_size": 2}), b"ab")),
    "v2: bytes too many": (400, as_bytes(header(data=ROW), b"abc")),
    "v2: a length that is none": (400, as_bytes(header(data=ROW), b"", "-5")),
    "v2: a length beyond the body": (400, as_bytes(header(data=ROW), b"", 10**9)),
    "v2: strings cut short": (
        400,
        as_bytes(
            header(name="program", shape=[1], datatype="BYTES", parameters={"binary_data_size": 6}),
            struct.pack("<I", 99) + b"ab",
        ),
    ),
    "no such page": (404, {"url": "/v1/nothing"}),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_request_is_refused(address: str, case: str) -> None:
    status, request = BAD[case]
    answer = httpx.post(
        address + request["url"], **{k: v for k, v in request.items() if k != "url"}
    )
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    assert "Traceback" not in answer.text
    assert httpx.post(f"{address}/v1/predict", json=GOOD).status_code == 200


def connected(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def test_slow_clients_are_refused_while_others_are_answered(address: str) -> None:
    """One sends a head byte by byte, one a body; one sends nothing; one never stops a head."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    starts = {
        "head": head[:30],
        "body": head + b"Content-Length: 100\r\n\r\n{",
        "silent": b"",
        "endless": head + b"A: " + b"a" * 100_000,
    }
    answers: dict[str, bytes] = {}

    def drip(name: str) -> None:
        with connected(address) as client:
            client.sendall(starts[name])
            client.settimeout(0.1)
            for _ in range(100):
                try:
                    part = client.recv(10_000)
                except TimeoutError:
                    if name in ("head", "body"):
                        with contextlib.suppress(OSError):  # closed: what it sent is read first
                            client.sendall(b"x")
                    continue
                except ConnectionResetError:
                    return
                if not part:
                    return
                answers[name] = answers.get(name, b"") + part
        raise AssertionError(f"{name}: still connected")

    threads = ThreadPoolExecutor(4)
    slow = [threads.submit(drip, name) for name in starts]
    answered = 0
    while not all(one.done() for one in slow):
        assert httpx.post(f"{address}/v1/predict", json=GOOD).status_code == 200
        answered += 1
    for one in slow:
        one.result()
    assert answered > 4
    assert {name: answer.split()[1] for name, answer in answers.items()} == {
        "head": b"408", "body": b"408", "silent": b"408", "endless": b"400"
    }  # fmt: skip


def test_a_body_without_a_length_is_counted(address: str) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * (BODY // 10)

    with contextlib.suppress(httpx.WriteError):  # the rest of the body is not taken
        assert httpx.post(f"{address}/v1/predict", content=parts()).status_code == 413
    assert httpx.post(f"{address}/v1/predict", json=GOOD).status_code == 200


def test_a_full_queue_is_said_and_the_stop_is_graceful(served: tuple[Path, Any]) -> None:
    words = ["--programs", ".", "--max-batch", "4", "--max-queue", "4", "--wait", "700"]
    with serving(served[0], "model.onnx", *words) as (address, process):
        with ThreadPoolExecutor(9) as pool:
            asked = [
                pool.submit(lambda name=name: post(address, name, 3))
                for name in ("birds", None) * 4
            ]
            statuses = [one.result() for one in asked]
        assert {answer.status_code for answer in statuses} == {200, 429}
        refused = next(answer for answer in statuses if answer.status_code == 429)
        assert refused.headers["Retry-After"] == "1"
        assert "the queue is full" in refused.json()["error"]["message"]
        # a request that has begun is answered, although the server was asked to stop
        with ThreadPoolExecutor(1) as pool:
            last = pool.submit(post, address, "birds", 1)
            wait_for(process, "graphprog_queue_rows 1.0", address)
            assert process.stop(signal.SIGTERM) == 0
            assert last.result().status_code == 200
        assert process.lines()[-1]["event"] == "stopped"


def post(address: str, program: str | None, rows: int) -> httpx.Response:
    return httpx.post(f"{address}/v1/predict", json={"arrays": ROW * rows, "program": program})


def wait_for(process: ServerProcess, line: str, address: str) -> None:
    for _ in range(500):
        if line in httpx.get(f"{address}/metrics").text:
            return
        threading.Event().wait(0.002)
    raise AssertionError(line)


def test_images_are_held_up_to_a_limit_together() -> None:
    kept = io.BytesIO()
    Image.new("RGB", (30, 20)).save(kept, "PNG")
    text = base64.b64encode(kept.getvalue()).decode()
    contract = gp.Contract(range=(0.0, 1.0))
    free = InputSpec("x", ("B", 3, "H", "W"), torch.float32)
    assert images_of([text] * 3, free, contract, 1_800).shape == (3, 3, 20, 30)
    with pytest.raises(RequestError, match="more than 1800 pixels together"):
        images_of([text] * 4, free, contract, 1_800)
    fixed = InputSpec("x", ("B", 3, 4, 4), torch.float32)
    assert images_of([text] * 9, fixed, contract, 1_800).shape == (9, 3, 4, 4)
