"""Initial values of entries: of the vocabulary, of a text, of activations, given ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import DataError, GraphprogError, ProgramError
from graphprog.spec.registry import format_spec, from_json, parse_spec, to_json
from tests.models.scaled_embeddings import VOCABULARY, captured, model_of
from tests.support import oracle


def entries(graph: gp.Graph, seed: int = 0, **options: Any) -> Tensor:
    task = gp.compile(graph, gp.Program([gp.Concatenative(**options)]), seed)
    return task.program_state()["program.concatenative.value"]


def seen(model: nn.Module, key: str, ids: Any) -> Tensor:
    """What the model has at an interface for some ids in a row."""
    ids = torch.as_tensor(ids).reshape(1, -1)
    return oracle.values_of(model, (ids,), {})[key][0]


@pytest.mark.parametrize("key", ["table:out", "scaled:out", "mix:in", "mix:out"])
def test_tokens_are_what_the_source_makes_of_them_there(key: str) -> None:
    model, graph = captured()
    value = entries(graph, at=key, length=3, init=gp.initializers.Tokens((7, 0, 39)))
    assert torch.equal(value, seen(model, key, [7, 0, 39]))


def test_tokens_repeat_and_are_cut_and_averaged() -> None:
    model, graph = captured()
    table = seen(model, "scaled:out", range(VOCABULARY))
    at = {"at": "scaled:out", "init": gp.initializers.Tokens((1, 2))}
    assert torch.equal(entries(graph, length=5, **at), table[[1, 2, 1, 2, 1]])
    assert torch.equal(entries(graph, length=1, **at), table[[1]])
    names = gp.initializers.Tokens(((1, 2, 3), 4))
    found = entries(graph, at="scaled:out", length=3, init=names)
    mean = table[[1, 2, 3]].mean(0)
    assert torch.allclose(found, torch.stack([mean, table[4], mean]))


def test_vocabulary_draws_distinct_tokens_by_the_seed() -> None:
    model, graph = captured()
    table = seen(model, "table:out", range(VOCABULARY))
    first = entries(graph, at="tokens", length=9, init="vocabulary")
    drawn = [(table == row).all(1).nonzero().item() for row in first]
    assert len(set(drawn)) == 9
    assert torch.equal(first, entries(graph, at="tokens", length=9, init="vocabulary"))
    assert not torch.equal(first, entries(graph, 1, at="tokens", length=9, init="vocabulary"))
    common = entries(graph, at="tokens", length=4, init=gp.initializers.Vocabulary(among=4))
    assert {(table == row).all(1).nonzero().item() for row in common} == {0, 1, 2, 3}
    many = entries(graph, at="tokens", length=VOCABULARY + 2, init="vocabulary")
    assert len(many.unique(dim=0)) == VOCABULARY


def test_the_scale_of_learnable_multiplies_them() -> None:
    model, graph = captured()
    value = gp.Learnable(gp.initializers.Tokens((5,)), scale=0.5)
    found = entries(graph, at="tokens", length=2, value=value)
    assert torch.equal(found, seen(model, "table:out", [5, 5]) * 0.5)


def test_entries_are_float32_whatever_the_source_is() -> None:
    model, graph = captured(torch.bfloat16)
    value = entries(graph, at="scaled:out", length=2, init=gp.initializers.Tokens((3, 4)))
    assert value.dtype == torch.float32
    assert torch.equal(value, seen(model, "scaled:out", [3, 4]).float())


def test_a_second_prompt_starts_from_the_source_and_not_from_the_first() -> None:
    _, graph = captured()
    init = gp.initializers.Tokens((7, 8))
    first = gp.Concatenative(at="scaled:out", length=3, name="first")
    push = gp.Additive(at="table:out", value=gp.Learnable("ones"))
    second = gp.Concatenative(at="scaled:out", length=2, name="second", init=init)
    task = gp.compile(graph, gp.Program([push, first, second]))
    expected = entries(graph, at="scaled:out", length=2, init=init)
    assert torch.equal(task.program_state()["program.second.value"], expected)


def test_deep_prompts_start_from_the_source_at_their_own_depth() -> None:
    model, graph = captured()
    first = gp.Concatenative(at="scaled:out", length=2)
    deep = gp.Replacement(at="mix:out", length=2, init=gp.initializers.Tokens((7, 8)))
    state = gp.compile(graph, gp.Program([first, deep])).program_state()
    assert torch.equal(state["program.replacement.entries.value"], seen(model, "mix:out", [7, 8]))


def test_other_inputs_are_filled_in_where_the_place_needs_them() -> None:
    model, graph = captured(masked=True)
    value = entries(graph, at="mix:in", length=3, init=gp.initializers.Tokens((1, 2, 3)))
    assert torch.equal(value, seen(model, "mix:in", [1, 2, 3]))


def test_a_fixed_length_is_filled_row_by_row() -> None:
    model = model_of()
    ids = torch.randint(0, VOCABULARY, (2, 5))
    graph = gp.capture(model, (ids,), dynamic_axes={"ids": {0: "batch"}})
    wanted = list(range(10))
    value = entries(graph, at="table:out", length=10, init=gp.initializers.Tokens(tuple(wanted)))
    assert torch.equal(value, seen(model, "table:out", wanted))


def test_activations_of_real_examples() -> None:
    model, graph = captured()
    ids = torch.randint(0, VOCABULARY, (3, 6))
    values = oracle.values_of(model, (ids,), {})["mix:out"].flatten(0, 1)
    ordered = entries(
        graph, at="mix:out", length=4, init=gp.initializers.Activations((ids,), "first")
    )
    assert torch.equal(ordered, values[:4])
    drawn = entries(graph, at="mix:out", length=4, init=gp.initializers.Activations(ids))
    assert len(drawn.unique(dim=0)) == 4
    assert all((values == row).all(1).any() for row in drawn)
    with pytest.raises(DataError, match="the graph takes"):
        entries(graph, at="mix:out", length=4, init=gp.initializers.Activations((ids, ids)))


class Patches(nn.Module):
    """Entries without any tokens: patches of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 8, 4, 4)
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.cut(images).flatten(2).transpose(1, 2).tanh().mean(1))


def test_where_there_are_no_tokens() -> None:
    torch.manual_seed(0)
    model = Patches().eval().requires_grad_(False)
    images = torch.rand(2, 3, 8, 8)
    graph = gp.capture(model, (images,))
    with pytest.raises(ProgramError, match="does not depend on token ids"):
        entries(graph, at="cut:out", axis=2, length=2, init="vocabulary")
    drawn = entries(graph, at="cut:out", axis=2, length=1, init=gp.initializers.Activations(images))
    assert drawn.shape == (8, 1, 2)
    rows = oracle.values_of(model, (images,), {})["cut:out"].transpose(1, 2).flatten(0, 1)
    assert any(torch.equal(drawn[:, 0], row) for row in rows)


def test_the_bound_of_patches() -> None:
    _, graph = captured()
    init = gp.initializers.PatchUniform(size=4, channels=3)
    value = entries(graph, at="tokens", length=30, init=init)
    bound = (6 / (3 * 16 + 16)) ** 0.5
    assert bound * 0.95 < value.abs().max() <= bound


class PatchSequence(Patches):
    """Patches as a sequence, which a layer reads."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.cut(images).flatten(2).transpose(1, 2)).mean(1)


@pytest.mark.parametrize(("size", "inputs"), [(0, 3 * 4 * 4), (2, 3 * 2 * 2)])
def test_the_bound_is_that_of_the_patches_of_the_source(size: int, inputs: int) -> None:
    graph = gp.capture(PatchSequence().eval(), (torch.rand(2, 3, 8, 8),))
    init = gp.initializers.PatchUniform(size)
    value = entries(graph, at="head:in", axis=1, length=200, init=init)
    bound = (6 / (inputs + 8)) ** 0.5
    assert bound * 0.95 < value.abs().max() <= bound


def test_prompts_of_vpt_start_as_the_paper_says() -> None:
    for parts in (gp.methods.vpt_shallow(), gp.methods.vpt_deep()):
        assert all(part.value == gp.Learnable(gp.initializers.PatchUniform(0)) for part in parts)


def test_given_numbers() -> None:
    _, graph = captured()
    numbers = torch.randn(2, 16)
    assert torch.equal(
        entries(graph, at="tokens", length=2, init=gp.initializers.Given(numbers)), numbers
    )
    with pytest.raises(ProgramError, match="initial values have shape"):
        entries(graph, at="tokens", length=3, init=gp.initializers.Given(numbers))


def test_texts_are_tokenized_by_any_callable() -> None:
    words = {"good": [5], "not good": [6, 5]}
    assert gp.initializers.text(words.__getitem__, "not good") == gp.initializers.Tokens((6, 5))
    assert gp.initializers.text(words.__getitem__, words) == gp.initializers.Tokens((5, 6, 5))
    averaged = gp.initializers.text(words.__getitem__, words, average=True)
    assert averaged == gp.initializers.Tokens(((5,), (6, 5)))

    def batched(text: str) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor([words[text]])}

    assert gp.initializers.text(batched, "not good").ids == (6, 5)
    with pytest.raises(ProgramError, match="no tokens"):
        gp.initializers.text(lambda text: [], "")


@pytest.mark.parametrize(
    "init",
    [
        "vocabulary",
        gp.initializers.Vocabulary(5),
        gp.initializers.Tokens((1, (2, 3))),
        gp.initializers.PatchUniform(14),
        gp.initializers.Given(torch.ones(2, 16)),
        gp.initializers.Activations(torch.ones(1, 4, dtype=torch.int64)),
    ],
)
def test_they_travel_as_text_and_json(init: Any) -> None:
    part = gp.Concatenative(at="tokens", length=2, init=init)
    tensors: dict[str, Tensor] = {}
    assert format_spec(parse_spec(format_spec(part, tensors), tensors)) == format_spec(part)
    again = from_json(to_json(part, {}), tensors) if not tensors else part
    _, graph = captured()
    states = [
        gp.compile(graph, gp.Program([one])).program_state()["program.concatenative.value"]
        for one in (part, again, parse_spec(format_spec(part, tensors), tensors))
    ]
    assert all(torch.equal(states[0], state) for state in states[1:])


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("resume", [False, True])
def test_files_do_not_hold_examples(computed: bool, resume: bool, tmp_path: Path) -> None:
    _, graph = captured()
    ids = torch.randint(0, VOCABULARY, (200, 20))
    start = gp.Learnable(gp.initializers.Activations(ids))
    value = gp.reparameterized.LowRank(start=start) if computed else start
    task = gp.compile(graph, gp.Program([gp.Concatenative(at="tokens", length=2, value=value)]))
    gp.save(task, tmp_path / "program.safetensors", resume=resume)
    assert (tmp_path / "program.safetensors").stat().st_size < 8 * ids.numel()
    loaded = gp.load(tmp_path / "program.safetensors", graph)
    assert torch.equal(loaded(ids[:3]), task(ids[:3]))
    assert "from-activations" in str(task.spec)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: gp.Learnable("vocab"), "gp.initializers"),
        (lambda: gp.initializers.Tokens(()), "no tokens"),
        (lambda: gp.initializers.Tokens(((),)), "no tokens"),
        (lambda: gp.initializers.Vocabulary(0), "leaves no tokens"),
        (lambda: gp.initializers.Activations((), order="last"), "must be one of random, first"),
        (
            lambda: entries(captured()[1], at="tokens", init=gp.initializers.Tokens((40,))),
            "no token 40",
        ),
        (
            lambda: gp.compile(
                captured()[1],
                gp.Program([gp.Additive(at="tokens", value=gp.Learnable("vocabulary"))]),
            ),
            "cannot be initialized from|does not consist of entries",
        ),
    ],
)
def test_what_cannot_be(make: Any, said: str) -> None:
    with pytest.raises(GraphprogError, match=said):
        make()
