"""What is fuzzed: files of every kind, with changes to bytes, documents, members and places."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import pickle
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import safetensors.torch
import torch
from torch import nn
from torch.export import Dim

import graphprog as gp
from graphprog.backends.onnx_model.metadata import KEY, read_document
from graphprog.capture.pt2_file.read import read_exported
from graphprog.io import artifact
from graphprog.ir.graph_file.container import KEY as GRAPH_KEY
from graphprog.peft import folder as peft_folder
from tests.models import kept_source
from tests.support import version_1 as kept
from tests.support.program_files import pack

Read = Callable[[], object]

MODULES = ("antigravity", "this", "graphprog_fuzz")
"""Modules that nothing imports."""

FILES = ("/etc/passwd", "/etc/hostname")
"""Files that nothing reads."""

_NUMBERS = (0, 1, -1, 2, 3, 255, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 0.5, 1e308, -0.0)
_CODE = "__import__('os').system('touch /tmp/graphprog-fuzz')"
_TEXTS = (
    *("", "a", "*", "input", "x" * 5_000, "\0", "../x", "/etc/passwd", "é\u202e", "a\nb"),
    *(_CODE, "9**9**9**9", "torch.hub.load", "torch.ops.aten.from_file.default", "aten::from_file"),
    *("os.system", "builtins.dict", "collections.defaultdict", "s0", "(a+)+b", "NaN", "program."),
    *('"]; import os; #', "cuda:99", "float128", "Infinity", "antigravity", "tensor", "node"),
)
_TREES: tuple[Any, ...] = (
    *([], {}, [[]], None, True, False, {"kind": "additive"}, {"tensor": "program.a"}),
    *({"node": "x"}, {"default_factory_module": "antigravity", "default_factory_name": "x"}),
    *({"__enum__": True, "fqn": "antigravity:x", "name": "x"}, {"as_string": "/etc/passwd"}),
    *({"as_operator": "torch.load"}, {"as_custom_obj": {"name": "a", "class_fqn": "b"}}),
    *({"as_expr": {"expr_str": _CODE}}, {"as_expr": {"expr_str": "9**9**9**9"}}, ["**", 9, 9]),
    *(["*", "s0", ["+", "s0", 1]], [0] * 1_000),
)


class Tiny(nn.Module):
    """A model of few operations, with a size that varies."""

    def __init__(self) -> None:
        super().__init__()
        self.head = kept_source.wave(nn.Linear(3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x).relu() + torch.arange(x.shape[0]).view(-1, 1)


@functools.cache
def seeds() -> dict[str, Any]:
    """Good files, as bytes or documents."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model, x = Tiny().eval(), torch.zeros(2, 3)
        graph = gp.capture(model, (x,))
        graph.save(folder / "a.graph")
        torch.export.save(
            torch.export.export(model, (x,), dynamic_shapes=({0: Dim.DYNAMIC},)), folder / "a.pt2"
        )
        task = gp.compile(graph, gp.Program([gp.Additive()], align=gp.FixedMap(2)))
        gp.save(task, folder / "a.safetensors")
        gp.backends.onnx.export(task, folder / "a.onnx", program="overridable")
        words = kept.graph_of("words")
        prompted = gp.compile(words, gp.Program(gp.methods.prompt_tuning(tokens=4)))
        gp.peft.save(
            prompted, folder / "peft", base_model_name_or_path="a", task_type="FEATURE_EXTRACTION"
        )
        vectors = {f"hidden[{block}]": torch.ones(4) for block in (1, 2)}
        gp.instruments.write_control_vectors(folder / "a.gguf", vectors, "llama")
        programs = [path.read_bytes() for path in sorted(kept.FOLDER.glob("*.safetensors"))]
        return {
            "graph": graph,
            "words": words,
            "graph file": (folder / "a.graph").read_bytes(),
            "pt2": (folder / "a.pt2").read_bytes(),
            "own": (folder / "a.safetensors").read_bytes(),
            "onnx": (folder / "a.onnx").read_bytes(),
            "programs": [data for data in programs if len(data) < 60_000],
            "control vectors": (folder / "a.gguf").read_bytes(),
            "peft": {one.name: one.read_bytes() for one in (folder / "peft").iterdir()},
        }


def prepare() -> None:
    """Make the seeds, and read each once, so that processes begun later have all they need."""
    with tempfile.TemporaryDirectory() as place:
        for number, make in enumerate(CASES.values()):
            for again in range(30):
                case = Path(place) / f"{number}-{again}"
                case.mkdir()
                try:
                    make(random.Random(again), case)()
                except Exception:  # what it says is judged later
                    continue


# ------------------------------------------------------------------ changes


def bytes_changed(data: bytes, chosen: random.Random) -> bytes:
    """Flip, cut, repeat, or write over a part of a file."""
    found = bytearray(data)
    for _ in range(chosen.randint(1, 6)):
        place = chosen.randrange(len(found) or 1)
        way = chosen.randrange(6)
        if way == 0 and found:
            found[place] ^= 1 << chosen.randrange(8)
        elif way == 1:
            del found[place : place + chosen.randint(1, 40)]
        elif way == 2:
            found[place:place] = found[place : place + chosen.randint(1, 200)]
        elif way == 3:
            found[place : place + 8] = struct.pack("<Q", chosen.choice((0, 2**31, 2**40, 2**63)))
        elif way == 4:
            found[place:place] = chosen.choice(_TEXTS).encode()
        elif chosen.random() < 0.2:
            del found[place:]
    return bytes(found)


def tree_changed(tree: Any, chosen: random.Random) -> Any:
    """Change a few places of a JSON document."""
    found = copy.deepcopy(tree)
    for _ in range(chosen.choice((1, 1, 1, 2, 3))):
        places = _places(found)
        if not places:
            return chosen.choice(_TREES)
        holder, key = chosen.choice(places)
        way = chosen.randrange(8)
        if way < 4:
            holder[key] = _value(holder[key], chosen)
        elif way == 4:
            del holder[key]
        elif way == 5:
            other, name = chosen.choice(places)
            if (isinstance(other, dict) and name in other) or (
                isinstance(other, list) and name < len(other)
            ):
                holder[key] = copy.deepcopy(other[name])
        elif isinstance(holder, dict):
            holder[chosen.choice(_TEXTS)] = holder.pop(key) if way == 6 else _value(None, chosen)
        else:
            holder += [copy.deepcopy(holder[key])] * chosen.choice((1, 1, 300))
    return found


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, dict | list):
            keys = list(item) if isinstance(item, dict) else range(len(item))
            found += [(item, key) for key in keys]
            pending += [item[key] for key in keys]
    return found


def _value(old: Any, chosen: random.Random) -> Any:
    if isinstance(old, str) and chosen.random() < 0.5:
        place = chosen.randrange(len(old) + 1)
        return old[:place] + chosen.choice(_TEXTS)[:200] + old[place + chosen.randint(0, 3) :]
    if isinstance(old, int) and chosen.random() < 0.5:
        return old + chosen.choice((-1, 1, 2, -old, 1_000, 10**7))
    pool: Any = chosen.choice((_NUMBERS, _TEXTS, _TREES))
    return copy.deepcopy(chosen.choice(pool))


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


# ------------------------------------------------------------------ kinds


def program_bytes(chosen: random.Random, place: Path) -> Read:
    (place / "a.safetensors").write_bytes(bytes_changed(chosen.choice(seeds()["programs"]), chosen))
    return lambda: artifact.read(place / "a.safetensors")


def program_document(chosen: random.Random, place: Path) -> Read:
    """A document or header that was changed, with the checksum that fits it."""
    header, body = _header(seeds()["own"])
    metadata = header.pop("__metadata__")
    document = json.loads(metadata["graphprog"])
    if chosen.random() < 0.8:
        for entry in ("program", "contract") if chosen.random() < 0.7 else ():
            document[entry] = tree_changed(document[entry], chosen)
        document = tree_changed(document, chosen) if chosen.random() < 0.5 else document
    else:
        header = tree_changed(header, chosen)
    metadata["graphprog"] = text = json.dumps(document)
    if not isinstance(header, dict):
        header = {}
    try:
        tensors = safetensors.torch.load(pack(header, body))
        metadata["checksum"] = artifact.checksum(text, tensors)
    except Exception:  # a header that nobody reads
        metadata["checksum"] = "0" * 64
    data = pack({"__metadata__": metadata, **header}, body)
    (place / "a.safetensors").write_bytes(data)
    return lambda: gp.load(place / "a.safetensors", seeds()["graph"])


def graph_file(chosen: random.Random, place: Path) -> Read:
    data = seeds()["graph file"]
    if chosen.random() < 0.3:
        data = bytes_changed(data, chosen)
    else:
        header, body = _header(data)
        document = tree_changed(json.loads(header["__metadata__"][GRAPH_KEY]), chosen)
        header["__metadata__"][GRAPH_KEY] = json.dumps(document)
        data = pack(header, body)
    (place / "a.graph").write_bytes(data)
    return lambda: gp.Graph.load(place / "a.graph")


class _Payload:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/graphprog-fuzz",)


_MEMBERS = (
    *("data/constants/opaque_obj_0", "data/constants/custom_obj_0", "models/other.json"),
    *("data/aotinductor/model/a.so", "data/weights/model.pt", "../x", "/x", "extra/a", "version"),
)


def exported_file(chosen: random.Random, place: Path) -> Read:
    path = place / "a.pt2"
    if chosen.random() < 0.3:
        path.write_bytes(bytes_changed(seeds()["pt2"], chosen))
        return lambda: read_exported(path)
    with zipfile.ZipFile(io.BytesIO(seeds()["pt2"])) as old:
        members = {name: old.read(name) for name in old.namelist()}
    texts = [name for name in members if name.endswith(".json")]
    for name in chosen.sample(texts, chosen.choice((1, 1, 2))):
        members[name] = json.dumps(tree_changed(json.loads(members[name]), chosen)).encode()
    if chosen.random() < 0.2:
        extra = chosen.choice((pickle.dumps(_Payload()), b"\x7fELF", members[texts[0]], b""))
        members["a/" + chosen.choice(_MEMBERS)] = extra
    if chosen.random() < 0.1:
        del members[chosen.choice(list(members))]
    if chosen.random() < 0.2:
        name = chosen.choice(list(members))
        members[name] = chosen.choice((pickle.dumps(_Payload()), bytes_changed(b"a", chosen), b""))
    with zipfile.ZipFile(path, "w", chosen.choice((0, 0, 0, 8))) as new:
        for name, data in members.items():
            new.writestr(name, data)
    whole = chosen.random() < 0.1
    return lambda: gp.capture(path) if whole else read_exported(path)


def onnx_metadata(chosen: random.Random, place: Path) -> Read:
    model = onnx.load_model_from_string(seeds()["onnx"])
    entry = next(item for item in model.metadata_props if item.key == KEY)
    if chosen.random() < 0.2:
        entry.value = bytes_changed(entry.value.encode(), chosen).decode(errors="replace")
    else:
        entry.value = json.dumps(tree_changed(json.loads(entry.value), chosen))
    text = entry.value
    if chosen.random() < 0.8:
        return lambda: read_document(text)
    (place / "a.onnx").write_bytes(model.SerializeToString())
    return lambda: gp.backends.onnxruntime.Session(place / "a.onnx", "cpu")


def peft(chosen: random.Random, place: Path) -> Read:
    for name, data in seeds()["peft"].items():
        if name.endswith(".json") and chosen.random() < 0.8:
            data = json.dumps(tree_changed(json.loads(data), chosen)).encode()
        elif name.endswith(".safetensors") and chosen.random() < 0.3:
            header, body = _header(data)
            data = pack(tree_changed(header, chosen), body)
        elif chosen.random() < 0.3:
            data = bytes_changed(data, chosen)
        (place / name).write_bytes(data)
    if chosen.random() < 0.3:
        displaced(place / chosen.choice(list(seeds()["peft"])), chosen)
    if chosen.random() < 0.15:
        return lambda: gp.peft.load(place, seeds()["words"])
    return lambda: peft_folder.read(place, None, None)


def hub(chosen: random.Random, place: Path) -> Read:
    path = place / "program.safetensors"
    path.write_bytes(seeds()["own"])
    (place / "README.md").write_text("mine", "utf-8")
    names = ("program.safetensors", "../x.safetensors", "/etc/passwd", "a/b.safetensors", "a\0b")
    name = chosen.choice((*names, "..\\x.safetensors", "C:x.safetensors", "x" * 400, ""))
    displaced(chosen.choice((path, place / "README.md")), chosen)
    if chosen.random() < 0.5:
        return lambda: gp.pull(place, name)
    source = place.parent / "own.safetensors"
    source.write_bytes(seeds()["own"])
    return lambda: gp.push(source, place, filename=name)


def control_vectors(chosen: random.Random, place: Path) -> Read:
    (place / "a.gguf").write_bytes(bytes_changed(seeds()["control vectors"], chosen))
    return lambda: gp.instruments.read_control_vectors(place / "a.gguf")


def displaced(path: Path, chosen: random.Random) -> None:
    """Put something other than the file into its place, or nothing."""
    way = chosen.randrange(7)
    path.unlink(missing_ok=True)
    if way == 0:
        os.mkfifo(path)
    elif way == 1:
        path.symlink_to("/dev/zero")
    elif way == 2:
        path.symlink_to(path)
    elif way == 3:
        path.mkdir()
    elif way == 4:
        path.symlink_to("/dev/tty")
    elif way == 5:
        with path.open("wb") as file:
            file.truncate(2**36)


CASES: dict[str, Callable[[random.Random, Path], Read]] = {
    "program bytes": program_bytes,
    "program documents": program_document,
    "graph files": graph_file,
    "files of torch.export": exported_file,
    "ONNX metadata": onnx_metadata,
    "PEFT folders": peft,
    "hub folders": hub,
    "control vectors": control_vectors,
}
KINDS = (list(CASES), (25, 15, 15, 15, 12, 10, 5, 3))
"""Names, and how many of a hundred."""
