"""Inputs that are given once: the texts of the classes beside the images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import DataError, FileError, GraphprogError
from graphprog.passes.erase import EraseProgram
from graphprog.spec.registry import format_spec, parse_spec
from tests.models import zoo

LONGEST = 12


class Towers(nn.Module):
    """Images [B, 6] compared with texts: ids and mask [K, S]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 8)
        self.places = nn.Parameter(torch.randn(LONGEST, 8))
        self.text = nn.Linear(8, 8)
        self.image = nn.Linear(6, 8)

    def forward(self, ids: Tensor, image: Tensor, mask: Tensor, scale: Tensor) -> dict[str, Tensor]:
        read = self.read(self.words(ids), mask)
        scores = scale * self.image(image) @ read.T
        return {"scores": scores, "read": read}

    def read(self, words: Tensor, mask: Tensor) -> Tensor:
        x = torch.tanh(self.text(words + self.places[: words.shape[1]]))
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


torch.manual_seed(0)
MODEL = Towers().eval()
AXES = {
    "ids": {0: "texts", 1: "sequence"},
    "image": {0: "batch"},
    "mask": {0: "texts", 1: "sequence"},
    "scale": {},
}
ON = gp.FixedMap(classes=4, at="output:scores")


def texts(count: int, length: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(count)
    mask = (torch.arange(length) < torch.arange(count)[:, None] % length + 1).long()
    return {"ids": torch.randint(30, (count, length), generator=generator), "mask": mask}


def call(count: int, batch: int) -> dict[str, Tensor]:
    given = texts(count) | {"image": torch.randn(batch, 6), "scale": torch.tensor([2.0])}
    return {name: given[name] for name in AXES}


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    return gp.capture(MODEL, (), call(3, 2), AXES)


def test_what_is_bound_is_asked_for_no_more(graph: gp.Graph) -> None:
    task = gp.compile(graph, gp.Program([gp.ConstantInputs(texts(4), name="classes")]))
    assert [spec.name for spec in task.inputs] == ["image", "scale"]
    for batch in (1, 5):
        given = call(4, batch)
        image, scale = given["image"], given["scale"]
        want = MODEL(**given)
        for found in (task(image, scale), task(image=image, scale=scale), task.graph(image, scale)):
            assert torch.equal(found["scores"], want["scores"])
            assert torch.equal(found["read"], want["read"])
    with pytest.raises(DataError, match=r"takes \(image, scale\)"):
        task(**call(4, 2))
    with task.disabled():
        assert torch.equal(task(**call(7, 2))["read"], MODEL(**call(7, 2))["read"])


def test_any_inputs_can_be_bound_and_asked_for_again(graph: gp.Graph) -> None:
    given = call(3, 2) | {"image": torch.randn(2, 6)}
    names = [("ids", "mask"), ("image",), ("scale",), ("ids", "mask", "image"), ("image", "scale")]
    for bound in names:
        for order in itertools.permutations(bound):
            task = gp.compile(
                graph, gp.Program([gp.ConstantInputs({name: given[name] for name in order})])
            )
            rest = {name: value for name, value in given.items() if name not in bound}
            assert [spec.name for spec in task.inputs] == [n for n in AXES if n not in bound]
            assert torch.equal(task(**rest)["scores"], MODEL(**given)["scores"])
            erased = EraseProgram()(task.graph)
            assert erased.bare_text == graph.bare_text
            assert torch.equal(erased(**given)["scores"], MODEL(**given)["scores"])


def test_several_parts_bind(graph: gp.Graph) -> None:
    given = call(4, 3)
    scale = gp.ConstantInputs({"scale": given["scale"]}, name="scale")
    task = gp.compile(graph, gp.Program([scale, gp.ConstantInputs(texts(4))]))
    assert torch.equal(task(given["image"])["scores"], MODEL(**given)["scores"])


def test_the_number_of_texts_is_the_number_of_classes(graph: gp.Graph) -> None:
    several = gp.FixedMap(sources=((0, 1), (2, 3), (4, 5)), at="output:scores")
    task = gp.compile(graph, gp.Program([gp.ConstantInputs(texts(6))], align=several))
    given = call(6, 5)
    pairs = MODEL(**given)["scores"].unflatten(1, (3, 2))
    torch.testing.assert_close(task(given["image"], given["scale"]), pairs.mean(2))
    with pytest.raises(GraphprogError, match="need 7, but 'output:scores' has only 6"):
        gp.compile(
            graph, gp.Program([gp.ConstantInputs(texts(6))], gp.FixedMap(7, at="output:scores"))
        )


@pytest.mark.parametrize("first", [True, False])
def test_tokens_are_learnt_in_front_of_bound_texts(graph: gp.Graph, first: bool) -> None:
    prompt = gp.Concatenative(at="tokens", length=3, init="normal", name="prompt")
    parts = [gp.ConstantInputs(texts(4)), prompt]
    task = gp.compile(graph, gp.Program(parts if first else parts[::-1], align=ON))
    given = call(4, 5)
    entries = task.program.prompt.value
    words = torch.cat([entries.expand(4, -1, -1), MODEL.words(given["ids"])], 1)
    mask = torch.cat([torch.ones(4, 3, dtype=torch.int64), given["mask"]], 1)
    want = given["scale"] * MODEL.image(given["image"]) @ MODEL.read(words, mask).T
    torch.testing.assert_close(task(given["image"], given["scale"]), want)
    task(given["image"], given["scale"]).sum().backward()
    assert entries.grad is not None
    assert entries.grad.abs().sum() > 0
    assert EraseProgram()(task.graph).bare_text == graph.bare_text


def test_inserted_entries_are_still_known() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(30, 8), nn.Linear(8, 4)

        def forward(self, ids: Tensor, scale: Tensor) -> Tensor:
            return self.head(self.words(ids)) * scale.sum()

    axes = {"ids": {0: "batch", 1: "sequence"}, "scale": {0: "rows"}}
    ids = torch.randint(30, (3, 5))
    reader = gp.capture(Reader().eval(), (ids, torch.ones(2, 1, 1)), None, axes)
    parts = [
        gp.Concatenative(at="tokens", length=2, offset=1),
        gp.ConstantInputs({"scale": torch.ones(1, 1, 1)}),
    ]
    alone, both = (gp.compile(reader, gp.Program(parts[:count])) for count in (1, 2))
    assert gp.losses.inserted(both, "logits") == gp.losses.inserted(alone, "logits") != ()


def test_training_reads_the_images_alone(graph: gp.Graph) -> None:
    prompt = gp.Concatenative(at="tokens", length=2, init="normal")
    bound = [gp.ConstantInputs(texts(4)), gp.ConstantInputs({"scale": torch.tensor([3.0])})]
    task = gp.compile(graph, gp.Program([*bound, prompt], align=ON))
    image = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    labels = (image[:, 0] > 0).long()
    before = gp.evaluate(task, (image, labels)).loss
    gp.fit(task, (image, labels), epochs=5, lr=0.1, batch_size=20)
    assert gp.evaluate(task, (image, labels)).loss < before - 0.1
    with pytest.raises(DataError, match="4 classes"):
        gp.fit(task, (image, labels + 3), epochs=1)


def test_a_program_is_saved_with_what_it_binds(graph: gp.Graph, tmp_path: Path) -> None:
    program = gp.Program([gp.ConstantInputs(texts(4), name="classes")], align=ON)
    kept: dict[str, Tensor] = {}
    assert parse_spec(format_spec(program, kept), kept) == program
    assert hash(program) == hash(parse_spec(format_spec(program, kept), kept))
    other = gp.Program([gp.ConstantInputs(texts(5), name="classes")], align=ON)
    assert program != other
    task = gp.compile(graph, program)
    gp.save(task, tmp_path / "made.safetensors")
    given = call(4, 3)
    again = gp.load(tmp_path / "made.safetensors", graph)
    image, scale = given["image"], given["scale"]
    assert torch.equal(again(image, scale), task(image, scale))
    assert task.program_state().keys() == {"program.align.sources"}


def test_onnx_files_take_the_rest(graph: gp.Graph, tmp_path: Path) -> None:
    prompt = gp.Concatenative(at="tokens", length=2, init="normal")
    task, other = (
        gp.compile(graph, gp.Program([gp.ConstantInputs(given), prompt], align=ON))
        for given in (texts(4), {**texts(4), "ids": texts(4)["ids"].flip(0)})
    )
    given = call(4, 3)
    image, scale = given["image"], given["scale"]
    for mode in ("folded", "overridable"):
        path = tmp_path / f"{mode}.onnx"
        assert gp.backends.onnx.export(task, path, program=mode).passed
        session = gp.backends.onnxruntime.Session(path)
        assert [spec.name for spec in session.inputs] == ["image", "scale"]
        found = torch.as_tensor(session.run(image, scale))
        torch.testing.assert_close(found, task(image, scale), atol=1e-5, rtol=1e-5)
    gp.save(other, tmp_path / "other.safetensors")
    with pytest.raises(FileError):
        session.run(image, scale, program=tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "give at least one input, each once"),
        (
            [("ids", torch.zeros(2, 3)), ("ids", torch.zeros(2, 3))],
            "give at least one input, each once",
        ),
        ({"ids": [[1, 2]]}, "given as list, not a tensor"),
        ([3], "not a name and a tensor"),
        ({"words": torch.zeros(2, 3)}, "no input words; it takes ids, image, mask, scale"),
        (texts(4) | {"ids": torch.zeros(4, 5)}, r"takes ids: i64\[T,S\], but was given f32\[4,5\]"),
        (texts(4) | {"ids": torch.zeros(4, dtype=torch.int64)}, "but was given"),
        ({"ids": texts(4)["ids"]}, "input 'mask' has the axis S, T of one that is bound"),
        (call(4, 2), "no input is left"),
        (texts(4, LONGEST + 1), "does not run on inputs of these lengths"),
        (texts(4) | {"mask": texts(4, 6)["mask"]}, "does not run on inputs of these lengths"),
    ],
)
def test_refusals(graph: gp.Graph, given: Mapping[str, Tensor], says: str) -> None:
    with pytest.raises(GraphprogError, match=says):
        gp.compile(graph, gp.Program([gp.ConstantInputs(given)]))


def test_a_prompt_and_a_text_that_are_too_long_together(graph: gp.Graph) -> None:
    prompt = gp.Concatenative(at="tokens", length=LONGEST - 6)
    gp.compile(graph, gp.Program([prompt, gp.ConstantInputs(texts(4, 6))]))
    with pytest.raises(GraphprogError, match=r"(?s)does not run on.*fewer inserted tokens"):
        gp.compile(graph, gp.Program([prompt, gp.ConstantInputs(texts(4, 7))]))


@pytest.mark.slow
@pytest.mark.xdist_group("clip")
def test_prompts_in_both_towers_of_a_library_model() -> None:
    model, graph = zoo.captured("clip")
    _, given = zoo.CASES["clip"].call(3)
    images = given["pixel_values"]
    classes = gp.ConstantInputs(
        {name: value for name, value in given.items() if name != "pixel_values"}
    )
    plain = gp.compile(graph, gp.Program([classes]))
    assert torch.equal(plain(images).logits_per_image, model(**given).logits_per_image)
    parts = gp.methods.maple(tokens=2, depth=2)
    asked, bound = (gp.compile(graph, gp.Program([*parts, *more])) for more in ([], [classes]))
    want = asked(**given).logits_per_image
    assert torch.equal(bound(images).logits_per_image, want)
    assert not torch.equal(want, model(**given).logits_per_image)
