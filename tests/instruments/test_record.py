"""Recorded values equal forward hooks bit for bit; recordings on disk are read row by row."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import DataError, FileError, InterfaceError, ProgramError
from graphprog.instruments import recording as recordings
from graphprog.instruments.selection import Selection
from tests.models.zoo import CASES, captured, cases
from tests.support.environments import ROOT, full_disk, run


def hooked(model: nn.Module, modules: dict[str, str], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Values that leave modules at their first call, by forward hooks on the model itself."""
    found: dict[str, Any] = {}

    def keep(name: str, result: Any) -> None:
        if isinstance(result, torch.Tensor):
            found.setdefault(name, result.clone())  # operations in place may change it later

    handles = [
        model.get_submodule(path).register_forward_hook(
            lambda _m, _a, result, name=name: keep(name, result)
        )
        for name, path in modules.items()
    ]
    with torch.no_grad():
        model(*args, **kwargs)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", cases([*CASES]))
def test_values_are_those_of_hooks(name: str) -> None:
    model, graph = captured(name)
    args, kwargs = CASES[name].call(3)
    keys = {
        key: key.removesuffix(":out")
        for key in graph.interfaces()
        if key.endswith(":out") and "@" not in key
    }
    if not keys:
        pytest.skip("no module of this model computes anything")
    flat = graph.call_spec.bind(args, kwargs)
    found = gp.record(graph, flat, at=[*keys])
    expected = hooked(model, keys, *args, **kwargs)
    assert expected
    for key, value in expected.items():
        assert torch.equal(found[key], value)


def test_a_run_stops_behind_the_last_interface() -> None:
    graph = captured("residual")[1]
    images = CASES["residual"].call(2)[0][0]
    values = gp.record(graph, images, at="hidden[0]")
    assert [*values] == ["hidden[0]"]
    run = graph.executable([graph.interfaces().resolve("hidden[0]").node])
    assert len(run.graph.nodes) < len(graph.code.nodes) / 2


def test_positions_and_summaries() -> None:
    graph = captured("bert")[1]
    call = CASES["bert"].call(3)[1]  # the last two tokens of row 0 are padding
    whole = gp.record(graph, call, at="hidden[0]")["hidden[0]"]

    def read(**options: Any) -> torch.Tensor:
        return gp.record(graph, call, at="hidden[0]", **options)["hidden[0]"]

    mask = call["attention_mask"].bool()
    assert torch.equal(read(positions=1), whole[:, 1])
    assert torch.equal(read(positions=-1), whole[:, -1])
    assert torch.equal(read(positions=slice(1, 3)), whole[:, 1:3])
    assert torch.equal(read(positions=[0, -1]), whole[:, [0, -1]])
    assert torch.equal(read(positions="last"), whole[range(3), mask.sum(1) - 1])
    assert torch.equal(read(positions="tokens"), whole[mask])
    assert torch.equal(read(positions=mask), whole[mask])
    assert torch.equal(read(reduce="mean"), whole.mean(1))
    expected = torch.stack([row[kept].mean(0) for row, kept in zip(whole, mask, strict=True)])
    torch.testing.assert_close(read(positions="tokens", reduce="mean"), expected)
    assert torch.equal(read(reduce="norm"), whole.norm(dim=-1))
    assert torch.equal(read(reduce=lambda value: value * 2), whole * 2)
    top = gp.record(graph, call, at="hidden[0]", reduce="top-3")
    assert torch.equal(top["hidden[0]"], whole.gather(-1, top["hidden[0].indices"]))
    assert bool((top["hidden[0]"].abs().amin(-1) >= whole.abs().kthvalue(30, -1).values).all())


def test_a_compiled_model_is_recorded_with_its_program() -> None:
    graph = captured("residual")[1]
    images = CASES["residual"].call(2)[0][0]
    task = gp.compile(graph, gp.Program([gp.Additive(value=gp.Learnable("normal"))]))
    names = ["hidden[0]", "hidden[1]"]
    before, after = (gp.record(model, images, at=names) for model in (graph, task))
    assert not torch.equal(before["hidden[0]"], after["hidden[0]"])
    assert torch.equal(after["hidden[1]"], task.graph.evaluate(names, [images])["hidden[1]"])


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(11, 3, 16, 16), torch.arange(11) % 3


def test_a_data_set_is_recorded_in_shards(
    tmp_path: Path, data: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = captured("residual")[1]
    monkeypatch.setattr(recordings, "SHARD_BYTES", 4096)
    options: dict[str, Any] = {"at": ["hidden[*]", "logits"], "to": tmp_path, "batch_size": 3}
    found = gp.record(graph, data, **options)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    expected = gp.record(graph, data[0], at=["hidden[*]", "logits"])
    assert set(found) == {*expected, "labels"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name].tensor(), value, rtol=1e-5, atol=1e-6)
        assert found[name].shape == tuple(value.shape)
    assert torch.equal(found["labels"].tensor(), data[1])
    value = found["hidden[0]"]
    assert torch.equal(value[4], value.tensor()[4])
    assert torch.equal(value[-1], value.tensor()[-1])
    assert torch.equal(value[2:9], value.tensor()[2:9])
    loader = torch.utils.data.DataLoader(found["logits"], batch_size=4)
    assert sum(map(len, loader)) == 11
    with pytest.raises(IndexError, match="row 11 of 11"):
        value[11]
    dataset = torch.utils.data.TensorDataset(*data)
    again = gp.record(graph, dataset, **{**options, "to": tmp_path / "set"})
    assert torch.equal(again["logits"].tensor(), found["logits"].tensor())


def test_an_interrupted_recording_goes_on(
    tmp_path: Path, data: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = captured("residual")[1]
    monkeypatch.setattr(recordings, "SHARD_BYTES", 1)  # a shard for each batch
    options: dict[str, Any] = {"at": "logits", "to": tmp_path, "batch_size": 4}

    class Killed(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 11

        def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
            if row >= 8:
                raise KeyboardInterrupt
            return data[0][row], data[1][row]

    with pytest.raises(KeyboardInterrupt):
        gp.record(graph, Killed(), **options)
    partial = gp.Recording(tmp_path)
    assert partial.rows == 8
    assert not partial.complete
    with pytest.raises(DataError, match="inside a batch"):
        gp.record(graph, data, **{**options, "batch_size": 5})
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("0*.safetensors")}
    found = gp.record(graph, data, **options)
    assert found.complete
    assert found.rows == 11
    for name, written in files.items():
        assert (tmp_path / name).stat().st_mtime_ns == written
    expected = gp.record(graph, data, **{**options, "to": tmp_path / "whole"})
    assert torch.equal(found["logits"].tensor(), expected["logits"].tensor())


@pytest.mark.parametrize("moment", ["_write_index", "_write"])
def test_a_recording_that_was_killed_in_its_first_shard_goes_on(
    tmp_path: Path,
    data: tuple[torch.Tensor, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """The shard may be there without a line in the index, or the folder be empty but for it."""
    graph = captured("residual")[1]
    options: dict[str, Any] = {"at": "logits", "to": tmp_path / "one", "batch_size": 4}
    monkeypatch.setattr(recordings, "SHARD_BYTES", 1)
    original = getattr(recordings.RecordingWriter, moment)

    def killed(self: Any) -> None:
        if self.document["shards"] or moment == "_write":
            raise KeyboardInterrupt
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(recordings.RecordingWriter, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            gp.record(graph, data, **options)
    assert gp.Recording(tmp_path / "one").rows == 0
    found = gp.record(graph, data, **options)
    expected = gp.record(graph, data, **{**options, "to": tmp_path / "two"})
    assert torch.equal(found["logits"].tensor(), expected["logits"].tensor())


KILLED = """
import os, signal, sys
from pathlib import Path
import safetensors.torch, torch
import graphprog as gp
from graphprog.instruments import recording

recording.SHARD_BYTES = 1
write, written = safetensors.torch.save_file, []

def killed(tensors, path, metadata=None):
    if len(written) == 2:
        Path(path).write_bytes(b"half of a shard")
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(path)
    write(tensors, path, metadata)

safetensors.torch.save_file = killed
graph = gp.Graph.load("graph.safetensors")
data = tuple(torch.load("data.pt"))
gp.record(graph, data, at="logits", to="recording", batch_size=4)
"""


def test_a_recording_goes_on_after_a_process_was_killed_while_it_wrote_a_shard(
    tmp_path: Path, data: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = captured("residual")[1]
    graph.save(tmp_path / "graph.safetensors")
    torch.save(list(data), tmp_path / "data.pt")
    done = run([sys.executable, "-c", KILLED], tmp_path, ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    partial = gp.Recording(tmp_path / "recording")
    assert (partial.rows, partial.complete) == (8, False)
    monkeypatch.setattr(recordings, "SHARD_BYTES", 1)
    options: dict[str, Any] = {"at": "logits", "batch_size": 4}
    found = gp.record(graph, data, **options, to=tmp_path / "recording")
    expected = gp.record(graph, data, **options, to=tmp_path / "whole")
    assert found.rows == 11
    for name, value in expected.items():
        assert torch.equal(found[name].tensor(), value.tensor())


def test_a_full_disk_leaves_what_was_recorded(
    tmp_path: Path, data: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = captured("residual")[1]
    options: dict[str, Any] = {"at": ["logits"], "to": tmp_path, "batch_size": 4}
    monkeypatch.setattr(recordings, "SHARD_BYTES", 1)
    gp.record(graph, data, **{**options, "to": tmp_path / "size"})
    size = (tmp_path / "size" / "000000.safetensors").stat().st_size
    write = recordings.RecordingWriter._write

    def filling(self: Any) -> None:
        with full_disk(size - 1 if self.document["shards"] else 10**6):
            write(self)

    with monkeypatch.context() as patch:
        patch.setattr(recordings.RecordingWriter, "_write", filling)
        with pytest.raises(FileError, match=r"000001\.safetensors: cannot be written"):
            gp.record(graph, data, **{**options, "to": tmp_path / "one"})
    assert gp.Recording(tmp_path / "one").rows == 4
    found = gp.record(graph, data, **{**options, "to": tmp_path / "one"})
    assert torch.equal(found["labels"].tensor(), data[1])


def test_what_is_kept_of_a_value_is_part_of_a_recording(
    tmp_path: Path, data: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """A function is known again in another process; a long mask by all of its entries."""
    factor = 2
    source = "lambda value: value[:, :3]"
    texts = [
        Selection(reduce=one).text.split()[-1]
        for one in (eval(source, {}), eval(source, {}), lambda value: value[:, :4])
    ]
    assert texts[0] == texts[1] != texts[2]
    enclosed = [Selection(reduce=lambda value: value * factor).text for _ in range(2)]
    assert enclosed[0] != enclosed[1]  # what it depends on is not known
    masks = torch.zeros(2, 4, 2000, dtype=torch.bool)
    masks[1, 2, 1000] = True
    assert len({Selection(positions=mask).text for mask in masks}) == 2
    graph = captured("residual")[1]
    options: dict[str, Any] = {"at": "logits", "to": tmp_path / "one"}
    gp.record(graph, data, **options, reduce=lambda value: value[:, :3])
    with pytest.raises(FileError, match="another selection"):
        gp.record(graph, data, **options, reduce=lambda value: value[:, :4])


def test_what_a_folder_may_not_hold(
    tmp_path: Path, data: tuple[torch.Tensor, torch.Tensor]
) -> None:
    graph = captured("residual")[1]
    found = gp.record(graph, data, at="logits", to=tmp_path / "one")
    found.require(graph)
    with pytest.raises(FileError, match="another places"):
        gp.record(graph, data, at="hidden[0]", to=tmp_path / "one")
    task = gp.compile(graph, gp.Program([gp.Additive()]))
    with pytest.raises(FileError, match="another source"):
        gp.record(task, data, at="logits", to=tmp_path / "one")
    with pytest.raises(FileError, match="another graph"):
        found.require(captured("sequential")[1])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(FileError, match="not empty"):
        gp.record(graph, data, at="logits", to=tmp_path / "other")
    with pytest.raises(FileError, match="cannot be read"):
        gp.Recording(tmp_path / "nowhere")
    index = tmp_path / "one" / "index.json"
    document = json.loads(index.read_text())
    for change, message in (
        ({"version": 2}, "version 1"),
        ({"shards": [{**document["shards"][0], "file": "../x.safetensors"}]}, "damaged"),
        ({"shards": [{**document["shards"][0], "rows": -1}]}, "damaged"),
        ({"places": 3}, "damaged"),
    ):
        index.write_text(json.dumps({**document, **change}))
        with pytest.raises(FileError, match=message):
            gp.Recording(tmp_path / "one")


def test_what_cannot_be_recorded() -> None:
    graph, call = captured("bert")[1], CASES["bert"].call(2)[1]
    for options, error, message in (
        ({"positions": 6}, DataError, r"has 6 positions; there is no position \[6\]"),
        ({"positions": "first"}, ProgramError, "positions must be"),
        ({"positions": torch.ones(2, 5).bool()}, DataError, r"bool \[2, 6\] is needed"),
        ({"reduce": "median"}, ProgramError, "reduce must be"),
        ({"reduce": "top-999"}, DataError, "fewer than 999"),
    ):
        with pytest.raises(error, match=message):
            gp.record(graph, call, at="hidden[0]", **options)  # type: ignore[call-overload]
    with pytest.raises(InterfaceError, match="no interface"):
        gp.record(graph, call, at="nowhere")
    images, net = CASES["residual"].call(2)[0][0], captured("residual")[1]
    with pytest.raises(DataError, match="has no axis of positions"):
        gp.record(net, images, at="hidden[0]", positions=0)
    patches, pictures = captured("vit")[1], CASES["vit"].call(2)[0][0]
    with pytest.raises(ProgramError, match=r"are those of tokens, and .* reads no ids"):
        gp.record(patches, pictures, at="hidden[0]", positions="last")
    with pytest.raises(ProgramError, match="capture the model first"):
        gp.record(nn.Linear(2, 2), call, at="hidden[0]")  # type: ignore[call-overload]


def test_positions_of_a_convolution_lie_behind_its_channels() -> None:
    class Listener(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hear, self.norm = nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4)
            self.read = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.read(self.norm(self.hear(x)).relu().transpose(1, 2))

    model, x = Listener().eval(), torch.randn(2, 1, 9)
    graph = gp.capture(model, (x,))
    found = gp.record(graph, x, ["hear:out", "norm:out", "read:in"], positions=3)
    heard = model.hear(x)
    assert found["hear:out"].equal(heard[:, :, 3])
    assert found["norm:out"].equal(model.norm(heard)[:, :, 3])
    assert found["read:in"].equal(model.norm(heard).relu()[:, :, 3])
    means = gp.record(graph, x, ["hear:out"], reduce="mean")
    torch.testing.assert_close(means["hear:out"], heard.mean(2))
