"""Rows over HTTP: predictions, the inference protocol by Triton's client, programs that change."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

import graphprog as gp
from tests.models.served_tasks import LABELS, image_task
from tests.support.servers.server_process import TOKEN, ServerProcess, serving

pytestmark = pytest.mark.xdist_group("serve")

BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Running:
    """A server, a client, and the same programs in PyTorch."""

    def __init__(self, folder: Path, address: str, tasks: dict[str, Any], process: Any) -> None:
        self.folder = folder
        self.address = address
        self.tasks: dict[str, gp.ReprogrammedModel] = tasks
        self.process: ServerProcess = process
        self.http = httpx.Client(base_url=address, timeout=60)
        self.triton = triton.InferenceServerClient(
            address.removeprefix("http://"), concurrency=4, network_timeout=60
        )

    def logits(self, name: str, images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found: np.ndarray = self.tasks[name](torch.from_numpy(images)).numpy()
        return found

    def predict(self, **body: Any) -> list[dict[str, Any]]:
        answer = self.http.post("/v1/predict", json=body)
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["rows"]
        return rows


@pytest.fixture(scope="module")
def running(served: tuple[Path, dict[str, gp.ReprogrammedModel]]) -> Iterator[Running]:
    folder, tasks = served
    words = ["--programs", ".", "--max-batch", "16", "--timeout", "20", "--max-body", "1000000"]
    with serving(folder, "model.onnx", *words) as (address, process):
        yield Running(folder, address, tasks, process)


def images_of(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, 3, 16, 16), dtype=np.float32)


def shares_of(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(1, keepdims=True))
    found: np.ndarray = weights / weights.sum(1, keepdims=True)
    return found


def test_every_row_of_arrays_has_its_own_program(running: Running) -> None:
    images, names = images_of(3), ["digits", "birds", "digits"]
    rows = running.predict(arrays=images.tolist(), program=names)
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        (shares,) = shares_of(running.logits(name, images[number : number + 1]))
        assert row["program"] == name
        assert row["label"] == LABELS[name][shares.argmax()]
        assert row["number"] == shares.argmax()
        assert row["probabilities"] == pytest.approx(dict(zip(LABELS[name], shares, strict=True)))
    (alone,) = running.predict(arrays={"input": images[:1].tolist()}, probabilities=False)
    assert alone["program"] is None  # that of the file
    assert alone["probabilities"] is None
    assert alone["label"] == rows[0]["label"]


def test_an_image_is_resized_rotated_and_scaled(running: Running) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    files = []
    for kind, orientation in (("PNG", 1), ("TIFF", 6)):
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = orientation
        image.save(file, kind, exif=exif)
        files.append(base64.b64encode(file.getvalue()).decode())
    rows = running.predict(images=[files[0], f"data:image/tiff;base64,{files[1]}"], program="birds")
    for row, seen in zip(rows, (image, image.rotate(-90, expand=True)), strict=True):
        small = seen.resize((16, 16), Image.Resampling.BICUBIC)
        array = np.asarray(small, np.float32).transpose(2, 0, 1)[None] / 255
        (shares,) = shares_of(running.logits("birds", array))
        assert row["probability"] == pytest.approx(shares.max(), abs=1e-5)


def test_the_client_of_triton_reads_and_asks(running: Running) -> None:
    client, images = running.triton, images_of(4)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("birds")
    assert client.get_server_metadata()["name"] == "graphprog"
    metadata = client.get_model_metadata("birds", model_version="1")
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 16, 16]}]
    assert {one["name"] for one in client.get_model_repository_index()} == {"model", *LABELS}
    tensor = triton.InferInput("input", images.shape, "FP32")
    expected = running.logits("birds", images)
    for binary_in in (True, False):
        for binary_out in (True, False):
            tensor.set_data_from_numpy(images, binary_data=binary_in)
            output = triton.InferRequestedOutput("logits", binary_data=binary_out)
            found = client.infer("birds", [tensor], outputs=[output], request_id="7")
            np.testing.assert_allclose(found.as_numpy("logits"), expected, atol=1e-5)
            assert found.get_response()["id"] == "7"
    asked = client.async_infer("birds", [tensor])
    np.testing.assert_allclose(asked.get_result().as_numpy("logits"), expected, atol=1e-5)


def test_the_client_of_triton_names_programs_of_rows(running: Running) -> None:
    images, names = images_of(2, 3), np.array([b"birds", b"digits"], dtype=object)
    tensor = triton.InferInput("input", images.shape, "FP32")
    tensor.set_data_from_numpy(images)
    program = triton.InferInput("program", [2], "BYTES")
    program.set_data_from_numpy(names)
    best = triton.InferRequestedOutput("logits", class_count=1)
    found = running.triton.infer("model", [tensor, program], outputs=[best]).as_numpy("logits")
    for row, name in enumerate(("birds", "digits")):
        (logits,) = running.logits(name, images[row : row + 1])
        score, number, label = found[row, 0].decode().split(":")
        assert (int(number), label) == (logits.argmax(), LABELS[name][logits.argmax()])
        assert float(score) == pytest.approx(logits.max(), abs=1e-5)
    output = triton.InferRequestedOutput("logits", binary_data=False)
    whole = running.triton.infer("model", [tensor, program], outputs=[output]).as_numpy("logits")
    assert whole[0, 2] == np.finfo(np.float32).min  # JSON has no infinity
    with pytest.raises(InferenceServerException, match="there is no program 'fish'"):
        running.triton.infer("fish", [tensor])
    with pytest.raises(InferenceServerException, match="is 'birds', but the program another"):
        running.triton.infer("birds", [tensor], parameters={"program": "digits"})


def test_requests_at_one_time_are_computed_together(running: Running) -> None:
    images = images_of(40, 5)
    names = [("digits", "birds")[number % 2] for number in range(40)]
    expected = [running.logits(n, images[k : k + 1]) for k, n in enumerate(names)]

    def ask(row: int) -> float:
        body = {"arrays": images[row : row + 1].tolist(), "program": names[row]}
        return float(running.predict(**body)[0]["probability"])

    before = value_of(running, "graphprog_batch_rows_count")
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(ask, range(40)))
    assert found == pytest.approx([shares_of(one).max() for one in expected], abs=1e-5)
    assert value_of(running, "graphprog_batch_rows_count") - before < 40
    line = running.process.lines()[-1]
    assert {"id", "status", "milliseconds", "path", "time", "level"} <= line.keys()


def value_of(running: Running, name: str) -> float:
    lines = running.http.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def test_programs_change_while_the_server_runs(running: Running) -> None:
    http, images = running.http, images_of(1)
    old, new = (image_task(running.tasks["birds"].base, "birds", seed) for seed in (11, 12))
    expected = []
    for number, task in enumerate((old, new)):
        gp.save(task, running.folder / f"{number}.saved")
        expected.append(shares_of(task(torch.from_numpy(images)).detach().numpy()).max())
    files = [(running.folder / f"{number}.saved").read_bytes() for number in (0, 1)]
    assert http.put("/v1/programs/fresh", content=files[0]).status_code == 401
    wrong = {"Authorization": "Bearer wrong"}
    assert http.put("/v1/programs/fresh", content=files[0], headers=wrong).status_code == 401
    assert http.delete("/v1/programs/birds").status_code == 401
    first = http.put("/v1/programs/fresh", content=files[0], headers=BEARER)
    assert first.status_code == 201
    assert first.json()["labels"] == ["finch", "robin"]
    assert [one["name"] for one in http.get("/v1/programs").json()] == ["birds", "digits", "fresh"]
    body = {"arrays": images.tolist(), "program": "fresh"}
    assert running.predict(**body)[0]["probability"] == pytest.approx(expected[0], abs=1e-5)
    wrong_answers, ended = [], threading.Event()

    def ask() -> None:
        while not ended.is_set():
            share = running.predict(**body)[0]["probability"]
            if min(abs(share - one) for one in expected) > 1e-5:
                wrong_answers.append(share)

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        for number in range(12):
            put = http.put("/v1/programs/fresh", content=files[number % 2 - 1], headers=BEARER)
            assert put.status_code == 200
        ended.set()
        for one in asking:
            one.result()
    assert wrong_answers == []
    assert http.delete("/v1/programs/fresh", headers=BEARER).status_code == 204
    assert http.get("/v1/programs/fresh").status_code == 404
    assert http.post("/v1/predict", json=body).status_code == 404


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("x", b"abc", "program x: not a graphprog program: only 3 bytes long"),
        ("model", None, "'model' is the name of the model"),
        ("..x", None, "'..x' is not a name"),
        ("x" * 201, None, "is not a name"),
    ],
)
def test_a_program_that_cannot_be_added_is_refused(
    running: Running, name: str, data: bytes | None, what: str
) -> None:
    content = (running.folder / "birds.safetensors").read_bytes() if data is None else data
    answer = running.http.put(f"/v1/programs/{name}", content=content, headers=BEARER)
    assert answer.status_code == 400
    assert what in answer.json()["error"]["message"]
    assert len(running.http.get("/v1/programs").json()) == 2
