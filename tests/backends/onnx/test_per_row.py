"""One program per row: one run of mixed programs computes what each task does for its row alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.backends.onnxruntime import Session, run_in_batches
from graphprog.errors import BackendError, DataError, FileError
from tests.models import zoo
from tests.models.deployed_tasks import UNIT, image_graph, image_task, text_batch, text_graph

pytestmark = pytest.mark.xdist_group("deployed-per-row")

NORMAL = gp.Learnable("normal", 0.5)
TEXT: dict[str, gp.Manipulation] = {
    "steering": gp.Additive(at="tokens", value=gp.Learnable("normal", shape=(16,))),
    "tokens": gp.Concatenative(at="tokens", length=3, tables="zeros", value=NORMAL),
    "prefix": gp.Prefix(length=4, value=NORMAL),
    "adapter": gp.Adapter(at="norm:out", width=3),
    "gated prefix": gp.Prefix(length=4, value=NORMAL, gates="all"),
}


@pytest.fixture(scope="module")
def images() -> gp.Graph:
    return image_graph()


@pytest.fixture(scope="module")
def texts() -> gp.Graph:
    return text_graph()


def alone(
    tasks: Sequence[gp.ReprogrammedModel], rows: Sequence[int], *given: torch.Tensor
) -> np.ndarray:
    """Logits of tasks for one row each, one after the other."""
    found = [
        tasks[number](*(value[row : row + 1] for value in given)).detach()[0]
        for row, number in enumerate(rows)
    ]
    widest = max(map(len, found))
    return np.stack(
        [np.pad(one.numpy(), (0, widest - len(one)), constant_values=-np.inf) for one in found]
    )


def saved(tasks: Sequence[gp.ReprogrammedModel], folder: Path) -> list[Path]:
    paths = [folder / f"{number}.safetensors" for number in range(len(tasks))]
    for task, path in zip(tasks, paths, strict=True):
        gp.save(task, path)
    return paths


def session_of(tasks: Sequence[gp.ReprogrammedModel], folder: Path) -> Session:
    """A session on a file exported from the first task, with all tasks by their numbers."""
    path = folder / "per_row.onnx"
    assert gp.backends.onnx.export(tasks[0], path, program="per_row").passed
    session = Session(path, providers="cpu")
    for number, program in enumerate(saved(tasks, folder)):
        session.add(str(number), program)
    return session


def equal_row_by_row(
    session: Session,
    tasks: Sequence[gp.ReprogrammedModel],
    batch: Callable[[int], tuple[torch.Tensor, ...]],
) -> None:
    for size in (1, 2, 7):
        given = batch(size)
        rows = [(3 * row + 1) % len(tasks) for row in range(size)]
        expected = alone(tasks, rows, *given)
        found = session.run(*given, program=[str(number) for number in rows])
        assert np.allclose(found, expected, atol=1e-5)
        if size > 1:
            single = alone(tasks, [0] * size, *given)
            assert np.allclose(session.run(*given, program="0"), single, atol=1e-5)
            assert np.allclose(session.run(*given), single, atol=1e-5)  # the file's own
            shared = np.isfinite(expected[0, : single.shape[1]])
            assert abs(single[0, : len(shared)] - expected[0, : len(shared)])[shared].max() > 1e-3


def image_batch(rows: int) -> tuple[torch.Tensor, ...]:
    return (torch.rand(rows, 1, 8, 8),)


@pytest.mark.parametrize(
    ("align", "classes"),
    [
        (lambda n: gp.BayesianMap(n), (5, 5, 3)),
        (lambda n: gp.LinearHead(n), (5, 2, 9)),
        (lambda n: gp.FrequencyMap(n), (5, 5, 5)),
    ],
    ids=["bayesian", "linear", "frequency"],
)
def test_pixels_and_heads(
    images: gp.Graph,
    align: Callable[[int], gp.Alignment],
    classes: tuple[int, ...],
    tmp_path: Path,
) -> None:
    tasks = [image_task(images, align(count), seed) for seed, count in enumerate(classes)]
    equal_row_by_row(session_of(tasks, tmp_path), tasks, image_batch)


@pytest.mark.parametrize("kind", TEXT)
def test_tokens_and_prefixes(texts: gp.Graph, kind: str, tmp_path: Path) -> None:
    tasks = [
        gp.compile(texts, gp.Program([TEXT[kind]], align=gp.LinearHead(count)), seed=seed)
        for seed, count in enumerate((4, 3, 6))
    ]
    for task in tasks:  # gates are closed and adapters nothing at first
        for name, value in task.program.named_parameters():
            if name.endswith("gates") or "adapter" in name:
                nn.init.uniform_(value, 0.2, 1.0)
    session = session_of(tasks, tmp_path)
    equal_row_by_row(session, tasks, lambda rows: text_batch(rows, 7))
    equal_row_by_row(session, tasks, lambda rows: text_batch(rows, 12))


def test_deep_prompts(tmp_path: Path) -> None:
    _, graph = zoo.captured("vit")
    program = gp.Program(gp.methods.vpt_deep(3), align=gp.LinearHead(3))
    tasks = [gp.compile(graph, program, seed=seed) for seed in range(3)]
    session = session_of(tasks, tmp_path)
    equal_row_by_row(session, tasks, lambda rows: tuple(zoo.images(32)(rows)[0]))


@pytest.fixture(scope="module")
def tasks(images: gp.Graph) -> list[gp.ReprogrammedModel]:
    made = []
    for seed, labels in enumerate(("ab", "vwxyz", "pqr")):
        contract = dataclasses.replace(UNIT, labels=tuple(labels))
        made.append(image_task(images, gp.LinearHead(len(labels)), seed, contract))
    return made


@pytest.fixture(scope="module")
def folder(tasks: list[gp.ReprogrammedModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("per_row")
    gp.backends.onnx.export(tasks[0], folder / "per_row.onnx", program="per_row")
    saved(tasks, folder)
    return folder


def test_the_file_is_standard_and_nodes_keep_the_path_of_their_module(folder: Path) -> None:
    model = onnx.load(folder / "per_row.onnx")
    assert [entry.domain for entry in model.opset_import] == [""]
    paths = {node.name.split("/")[0] for node in model.graph.node}
    assert {"program.additive", "program.additive_1", "program.align", "blocks.1.0"} <= paths
    initial = {tensor.name for tensor in model.graph.initializer}
    asked = {value.name for value in model.graph.input}
    assert asked - initial == {"images", "program.row"}
    assert {name for name in initial if name.startswith("program.")} == asked & initial


def test_programs_come_and_go(folder: Path, tasks: list[gp.ReprogrammedModel]) -> None:
    session = Session(folder / "per_row.onnx", providers="cpu")
    assert session.list() == ()
    session.add("b", folder / "1.safetensors")
    session.add("a", session.load_program(folder / "0.safetensors"))
    session.add("c", tasks[2].program_state())
    assert session.list() == ("b", "a", "c")
    (images,) = image_batch(3)
    expected = alone(tasks, [0, 1, 2], images)
    mixed = ["a", folder / "1.safetensors", tasks[2].program_state()]
    assert np.allclose(session.run(images, program=mixed), expected, atol=1e-5)
    assert (np.isfinite(expected).sum(1) == [2, 5, 3]).all()
    session.add("b", folder / "2.safetensors")
    again = alone(tasks, [2, 2, 2], images)
    assert np.allclose(session.run(images, program="b"), again, atol=1e-5)
    session.remove("a")
    assert session.list() == ("c", "b")
    for call in (lambda: session.run(images, program="a"), lambda: session.remove("a")):
        with pytest.raises(BackendError, match=r"no program 'a' and .* there are 'c', 'b'"):
            call()


def test_each_row_has_the_labels_of_its_program(
    folder: Path, tasks: list[gp.ReprogrammedModel]
) -> None:
    session = Session(folder / "per_row.onnx", providers="cpu")
    for name in "012":
        session.add(name, folder / f"{name}.safetensors")
    rows = [0, 1, 2, 2, 1, 0]
    (images,) = image_batch(6)
    numbers = alone(tasks, rows, images).argmax(1)
    expected = [("ab", "vwxyz", "pqr")[row][n] for row, n in zip(rows, numbers, strict=True)]
    assert session.predict(images, program=[str(row) for row in rows]) == expected
    assert set(session.predict(images)) <= set("ab")


def test_least_recently_used_programs_lie_on_disk(
    folder: Path, tasks: list[gp.ReprogrammedModel]
) -> None:
    one = sum(tensor.nbytes for tensor in tasks[1].program_state().values())
    session = Session(folder / "per_row.onnx", providers="cpu", memory=2 * one)
    for number in range(3):
        for copy in "xyz":
            session.add(f"{copy}{number}", folder / f"{number}.safetensors")
            assert session._cache.kept <= 2 * one
    (images,) = image_batch(9)
    names = [f"{copy}{number}" for number in range(3) for copy in "zxy"]
    expected = alone(tasks, [0, 0, 0, 1, 1, 1, 2, 2, 2], images)
    for _ in range(2):
        assert np.allclose(session.run(images, program=names), expected, atol=1e-5)
        assert session._cache.kept <= 2 * one
    aside = Path(session._cache._folder.name)
    assert len(list(aside.iterdir())) == 9
    session.remove("x0")
    assert len(list(aside.iterdir())) == 8
    for file in aside.iterdir():
        file.unlink()
    with pytest.raises(FileError, match=r"program 'y0', put aside at .*, is gone"):
        session.run(images, program="y0")


def test_rows_and_programs_are_as_many(folder: Path) -> None:
    session = Session(folder / "per_row.onnx", providers="cpu")
    session.add("a", folder / "0.safetensors")
    with pytest.raises(DataError, match="there are 2 programs for 3 rows"):
        session.run(torch.rand(3, 1, 8, 8), program=["a", "a"])


def test_many_rows_some_at_a_time(folder: Path, tasks: list[gp.ReprogrammedModel]) -> None:
    session = Session(folder / "per_row.onnx", providers="cpu")
    for name in "012":
        session.add(name, folder / f"{name}.safetensors")
    rows = [0, 0, 1, 1, 2, 0, 1, 2]  # the batches of two have different numbers of classes
    (images,) = image_batch(8)
    names = [str(row) for row in rows]
    (found,) = run_in_batches(session, images, rows=2, program=names)
    assert np.allclose(found, alone(tasks, rows, images), atol=1e-5)
    with pytest.raises(DataError, match="there are 10 programs for 8 rows"):
        run_in_batches(session, images, rows=2, program=[*names, "0", "1"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"program.align.bias": torch.zeros(4)},
            "different numbers of classes: .*weight 5.*bias 4",
        ),
        (
            {"program.align.weight": torch.zeros(5, 23)},
            r"weight: float32\[5,23\] replaces no tensor",
        ),
        ({"program.additive.value": torch.zeros(1)}, r"value: float32\[1\] replaces no tensor"),
        ({"program.other": torch.zeros(1)}, r"program\.other: float32\[1\] replaces no tensor"),
        ({"program.additive.value": None}, r"the program has no program\.additive\.value"),
    ],
)
def test_tensors_of_another_slot_are_refused(
    folder: Path,
    tasks: list[gp.ReprogrammedModel],
    changes: dict[str, torch.Tensor | None],
    message: str,
) -> None:
    session = Session(folder / "per_row.onnx", providers="cpu")
    state = {**tasks[1].program_state(), **changes}
    with pytest.raises(BackendError, match=message):
        session.add("a", {name: one for name, one in state.items() if one is not None})
    assert session.list() == ()


def test_programs_of_another_kind_or_source_are_refused(
    folder: Path, images: gp.Graph, tmp_path: Path
) -> None:
    session = Session(folder / "per_row.onnx", providers="cpu")
    gp.save(image_task(images, gp.BayesianMap(2)), tmp_path / "other.safetensors")
    with pytest.raises(
        FileError, match=r"other\.safetensors: .* not of the kind that .*per_row\.onnx"
    ):
        session.add("a", tmp_path / "other.safetensors")
    other = image_graph()
    with torch.no_grad():
        other.weights.source.head.bias.add_(1)
    gp.save(image_task(other, gp.LinearHead(2)), tmp_path / "foreign.safetensors")
    with pytest.raises(FileError, match="made for other weights"):
        session.add("a", tmp_path / "foreign.safetensors")
    with pytest.raises(BackendError, match="'' cannot be the name"):
        session.add("", tmp_path / "other.safetensors")


def test_rows_of_a_overridable_file_have_their_own_programs_too(
    images: gp.Graph, tmp_path: Path
) -> None:
    tasks = [image_task(images, gp.LinearHead(2), seed) for seed in (0, 1)]
    gp.backends.onnx.export(tasks[0], tmp_path / "task.onnx", program="overridable")
    session = Session(tmp_path / "task.onnx", providers="cpu")
    for name, task in zip("ab", tasks, strict=True):
        session.add(name, task.program_state())
    given, order = torch.rand(5, 1, 8, 8), "baaba"
    found = torch.from_numpy(session.run(given, program=list(order)))
    with torch.no_grad():
        wanted = torch.stack([tasks["ab".index(n)](given)[row] for row, n in enumerate(order)])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    parts = run_in_batches(session, given, rows=2, program=list(order))
    torch.testing.assert_close(torch.from_numpy(parts[0]), wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(DataError, match="2 programs for 5 rows"):
        session.run(given, program=["a", "b"])
    with pytest.raises(DataError, match="the list of programs is empty"):
        session.run(given, program=[])


class Turned(nn.Module):
    """Rows at the end, and a weight that is transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.table = nn.Parameter(torch.rand(4, 70_000))  # too large to be transposed beforehand

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layer(x).t(), self.table.t()


def test_runs_are_not_put_together_where_rows_are_not_in_front(tmp_path: Path) -> None:
    task = gp.compile(
        gp.capture(Turned(), (torch.rand(3, 4),)), gp.Program([gp.Additive(at="input")])
    )
    gp.backends.onnx.export(task, tmp_path / "task.onnx", program="overridable")
    session = Session(tmp_path / "task.onnx", providers="cpu")
    for name in "ab":
        session.add(name, task.program_state())
    given = torch.rand(4, 4)
    assert session.run(given, program="a").shape == (2, 4)
    with pytest.raises(BackendError, match="no leading axis of rows"):
        session.run(given, program=list("abab"))
    with pytest.raises(BackendError, match="no leading axis of rows"):
        run_in_batches(session, given, rows=2, program="a")


def test_networks_of_convolutions_are_refused_by_name(images: gp.Graph, tmp_path: Path) -> None:
    task = gp.compile(images, gp.Program([gp.SampleMask(patch=4)], align=gp.LinearHead(2)))
    with pytest.raises(
        BackendError, match=r"conv2d in program\.sample_mask cannot have one program"
    ):
        gp.backends.onnx.export(task, tmp_path / "x.onnx", program="per_row")
    assert not list(tmp_path.iterdir())


def test_what_joins_program_and_batch_is_refused_by_name(tmp_path: Path) -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.reshape(-1, 4)).reshape(x.shape).mean(1)

    graph = gp.capture(Folded().eval(), (torch.rand(2, 3, 4),))
    shape = gp.Learnable("normal", shape=(4,))
    task = gp.compile(graph, gp.Program([gp.Additive(at="linear:out", value=shape)]))
    with pytest.raises(BackendError, match=r"(?s)add.* in .* no axis that is the batch alone"):
        gp.backends.onnx.export(task, tmp_path / "x.onnx", program="per_row")
    assert not list(tmp_path.iterdir())
