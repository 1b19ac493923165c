"""The HTTP server under load, beside the same rows given to a session by hand.

    python -m benchmarks.serving_http [programs] [seconds] [full | small]

1,000 programs (a border of pixels and a head) on a source of the size of ViT-S/16 with random
weights, served on this machine. 48 connections send 1 to 4 rows each, with random programs:
tensors as bytes (Open Inference Protocol), images in base64, and numbers in JSON. Meanwhile
programs are replaced, 5 a second. Every answer is compared with the session's for the program that
was there when the request was made, or one that replaced it before the answer. The server and the
session take turns, so that other work on the machine slows both; the client runs on the same cores
as the server.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import torch
import transformers
from PIL import Image

import graphprog as gp
from benchmarks.turns import machine

CONNECTIONS, ROWS, CHANGES, TURNS, POOL, SPARE = 48, 4, 5.0, 6, 16, 50
TOKEN = "benchmark"


@dataclasses.dataclass
class Asked:
    """A request: its pictures, program, contents that the program had meanwhile, and the answer."""

    pictures: list[int]
    name: str
    contents: set[str]
    answer: np.ndarray | None = None
    logits: bool = True
    seconds: float = 0.0


def main() -> None:
    """Measure, and print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    print(machine())
    with tempfile.TemporaryDirectory() as text, torch.no_grad():
        folder = Path(text)
        session = written(folder, count, "small" in sys.argv)
        server, address = started(folder)
        try:
            asyncio.run(measured(folder, session, address, count, seconds))
        finally:
            server.terminate()
            print(f"exit code of the server: {server.wait()}")


def written(folder: Path, count: int, small: bool) -> Any:
    """Write the model and programs; a session that has all of them."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6}
    if small:
        sizes = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 2}
        sizes |= {"num_hidden_layers": 3, "image_size": 64}
    config = transformers.ViTConfig(num_labels=1000, **sizes)
    model = transformers.ViTForImageClassification(config).eval().requires_grad_(False)
    side = config.image_size
    graph = gp.capture(model, (torch.rand(2, 3, side, side),))
    border = gp.Additive(mask=gp.masks.border(inner=side * 3 // 4), value=gp.Learnable("normal"))
    contract = gp.Contract("unit", 0.5, 0.5, labels=tuple(map(str, range(10))))
    task = gp.compile(graph, gp.Program([border], align=gp.LinearHead(10), contract=contract))
    gp.backends.onnx.export(task, folder / "model.onnx", program="per_row")
    session = gp.backends.onnxruntime.Session(folder / "model.onnx", "cpu")
    generator = torch.Generator().manual_seed(1)
    for place, total in (("programs", count), ("spare", SPARE)):
        (folder / place).mkdir()
        for number in range(total):
            state = {
                name: torch.randn(value.shape, generator=generator) * 0.5
                for name, value in task.program_state().items()
            }
            task.load_program_state(state)
            file = folder / place / f"{place[0]}{number}.safetensors"
            gp.save(task, file)
            session.add(file.stem, file)
    return session


def started(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start the server; its address."""
    words = ["serve", "model.onnx", "--programs", "programs", "--port", "0", "--providers", "cpu"]
    log = folder / "log"
    with log.open("wb") as lines:
        server = subprocess.Popen(
            [sys.executable, "-m", "graphprog", *words],
            cwd=folder,
            stderr=lines,
            env={**os.environ, "GRAPHPROG_TOKEN": TOKEN},
        )
    while server.poll() is None:
        for line in log.read_text(encoding="utf-8").splitlines():
            if line.startswith("{") and "address" in (found := json.loads(line)):
                return server, found["address"]
        time.sleep(0.1)
    raise RuntimeError(log.read_text(encoding="utf-8"))


class Client:
    """Sends requests while programs change."""

    def __init__(self, folder: Path, address: str, count: int, side: int) -> None:
        generator = np.random.default_rng(0)
        self.pixels = generator.integers(0, 256, (POOL, side, side, 3), dtype=np.uint8)
        self.arrays = self.pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
        self.files = [encoded(one) for one in self.pixels]
        self.texts = [json.dumps(one.tolist()) for one in self.arrays]
        self.names = [f"p{number}" for number in range(count)]
        self.live = {name: {name} for name in self.names}
        self.open: dict[str, list[set[str]]] = {name: [] for name in self.names}
        self.folder, self.address = folder, address
        self.random = random.Random(0)
        self.done: list[Asked] = []
        self.changes = self.busy = 0

    async def load(self, seconds: float) -> None:
        """Send requests for a time."""
        until = time.monotonic() + seconds
        connector = aiohttp.TCPConnector(limit=CONNECTIONS + 1)
        async with aiohttp.ClientSession(self.address, connector=connector) as http:
            work = [self.ask_on(http, until) for _ in range(CONNECTIONS)]
            await asyncio.gather(self.change_on(http, until), *work)

    async def ask_on(self, http: aiohttp.ClientSession, until: float) -> None:
        while time.monotonic() < until:
            name = self.random.choice(self.names)
            pictures = self.random.choices(range(POOL), k=self.random.randint(1, ROWS))
            asked = Asked(pictures, name, set(self.live[name]))
            self.open[name].append(asked.contents)
            start = time.monotonic()
            await self.ask(http, asked, self.random.choices(range(3), (6, 3, 1))[0])
            asked.seconds = time.monotonic() - start
            self.open[name] = [one for one in self.open[name] if one is not asked.contents]
            if asked.answer is not None:
                self.done.append(asked)

    async def ask(self, http: aiohttp.ClientSession, asked: Asked, kind: int) -> None:
        if kind == 0:
            array = self.arrays[asked.pictures]
            head: dict[str, Any] = {
                "name": "pixel_values",
                "shape": array.shape,
                "datatype": "FP32",
            }
            head["parameters"] = {"binary_data_size": array.nbytes}
            outputs = [{"name": "logits", "parameters": {"binary_data": True}}]
            text = json.dumps({"inputs": [head], "outputs": outputs}).encode()
            headers = {"Inference-Header-Content-Length": str(len(text))}
            path, data = f"/v2/models/{asked.name}/infer", text + array.tobytes()
            async with http.post(path, data=data, headers=headers) as answer:
                if self.answered(answer.status):
                    found = await answer.read()
                    size = int(answer.headers["Inference-Header-Content-Length"])
                    asked.answer = np.frombuffer(found[size:], np.float32).reshape(-1, 10)
            return
        if kind == 1:
            files = ", ".join(f'"{self.files[one]}"' for one in asked.pictures)
            text = f'{{"images": [{files}], "program": "{asked.name}"}}'.encode()
        else:
            arrays = ", ".join(self.texts[one] for one in asked.pictures)
            text = f'{{"arrays": [{arrays}], "program": "{asked.name}"}}'.encode()
        headers = {"Content-Type": "application/json"}
        async with http.post("/v1/predict", data=text, headers=headers) as answer:
            if self.answered(answer.status):
                rows = (await answer.json())["rows"]
                shares = [[row["probabilities"][str(k)] for k in range(10)] for row in rows]
                asked.answer, asked.logits = np.array(shares), False

    def answered(self, status: int) -> bool:
        if status == 429:
            self.busy += 1
            return False
        assert status == 200, status
        return True

    async def change_on(self, http: aiohttp.ClientSession, until: float) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        while time.monotonic() < until:
            name, new = self.random.choice(self.names), f"s{self.random.randrange(SPARE)}"
            data = (self.folder / "spare" / f"{new}.safetensors").read_bytes()
            for contents in (self.live[name], *self.open[name]):
                contents.add(new)
            async with http.put(f"/v1/programs/{name}", data=data, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
            self.live[name] = {new}
            self.changes += 1
            await asyncio.sleep(1 / CHANGES)


def encoded(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


async def measured(folder: Path, session: Any, address: str, count: int, seconds: float) -> None:
    """Let server and session take turns, and print what came out."""
    client = Client(folder, address, count, session.inputs[0].shape[-1])
    await client.load(3)  # both are warm
    client.done.clear()
    served = by_hand = 0.0
    latencies: list[float] = []
    rows = wrong = 0
    sizes: list[float] = []
    for _ in range(TURNS):
        before = await batches(address)
        start = time.monotonic()
        await client.load(seconds / TURNS)
        served += time.monotonic() - start
        after = await batches(address)
        size = (after[1] - before[1]) / (after[0] - before[0])
        sizes.append(size)
        time_by_hand, mistakes = compared(session, client, max(1, round(size)))
        by_hand, wrong = by_hand + time_by_hand, wrong + mistakes
        rows += sum(len(asked.pictures) for asked in client.done)
        latencies += [asked.seconds for asked in client.done]
        client.done.clear()
    cuts = statistics.quantiles(latencies, n=100)
    print(f"\n{count} programs on {session.document.source_name}, {served:.0f} s of load")
    print(
        f"- requests: {len(latencies)}, {rows} rows, {CONNECTIONS} connections, 429: {client.busy}"
    )
    print(f"- rows a batch: {statistics.mean(sizes):.1f}; programs replaced: {client.changes}")
    print(f"- latency: p50 {cuts[49] * 1e3:.0f} ms, p99 {cuts[98] * 1e3:.0f} ms")
    print(f"- rows a second: {rows / served:.1f} served, {rows / by_hand:.1f} by hand;")
    print(f"  ratio {by_hand / served:.3f}")
    print(f"- wrong rows: {wrong}")


async def batches(address: str) -> tuple[float, float]:
    """Number of batches so far, and of their rows."""
    async with aiohttp.ClientSession(address) as http, http.get("/metrics") as answer:
        values = dict(line.rsplit(" ", 1) for line in (await answer.text()).splitlines())
    return tuple(float(values[f"graphprog_batch_rows_{one}"]) for one in ("count", "sum"))


def compared(session: Any, client: Client, size: int) -> tuple[float, int]:
    """Run all rows in batches of a size; the time of it, and how many rows were answered wrong."""
    pairs = [
        (asked, place, picture)
        for asked in client.done
        for place, picture in enumerate(asked.pictures)
    ]
    seconds, found = 0.0, []
    for start in range(0, len(pairs), size):
        some = pairs[start : start + size]
        images = client.arrays[[picture for _, _, picture in some]]
        names = [min(asked.contents) for asked, _, _ in some]
        begun = time.monotonic()
        found.append(session.run(images, program=names))
        seconds += time.monotonic() - begun
    wrong = 0
    for (asked, place, picture), logits in zip(pairs, np.concatenate(found), strict=True):
        others = sorted(asked.contents)[1:]
        images = client.arrays[[picture] * len(others)]
        rows = [logits, *(session.run(images, program=others) if others else ())]
        assert asked.answer is not None
        own = asked.answer[place]
        wrong += not any(np.allclose(own, seen(asked, row), atol=2e-3) for row in rows)
    return seconds, wrong


def seen(asked: Asked, logits: np.ndarray) -> np.ndarray:
    """What the answer to a request shows of logits."""
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return logits if asked.logits else weights / weights.sum()


if __name__ == "__main__":
    main()
