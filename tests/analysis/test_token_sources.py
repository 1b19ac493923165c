"""Series, images and other vocabularies in place of token ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import GraphprogError, InterfaceError, PassError, ProgramError
from graphprog.manipulations import TokenSource
from graphprog.values.context import BuildContext
from graphprog.values.patches import ImagePatches, SeriesPatches
from tests.models.networks.corner import Encoder
from tests.models.zoo import CASES, captured
from tests.support.comparisons import same

State = dict[str, torch.Tensor]


def own_state(task: gp.ReprogrammedModel) -> State:
    return {name.split(".", 2)[2]: value for name, value in task.program_state().items()}


def combined(table: torch.Tensor, state: State, ids: torch.Tensor, part: gp.VocabularyMap) -> Any:
    weights = state["value"].softmax(-1) if part.weighting == "softmax" else state["value"]
    rows = []
    for word in ids.flatten():
        own = weights[word].clone()
        if part.top is not None:
            own[own.abs().argsort(descending=True)[part.top :]] = 0
        rows.append(own @ table)
    return torch.stack(rows).reshape(*ids.shape, -1)


def cut(series: torch.Tensor, patches: SeriesPatches) -> torch.Tensor:
    """Patches of series [B, L], one by one."""
    mean, deviation = series.mean(1, keepdim=True), series.std(1, keepdim=True, correction=0)
    series = (series - mean) / (deviation**2 + 1e-5).sqrt()
    padded = torch.cat([series, series[:, -1:].repeat(1, patches.patch - patches.stride)], 1)
    starts = range(0, series.shape[1], patches.stride)
    return torch.stack([padded[:, start : start + patches.patch] for start in starts], 1)


def linear(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def attended(x: torch.Tensor, table: torch.Tensor, state: State, heads: int) -> torch.Tensor:
    """The reprogramming layer by PyTorch's circular convolution and attention."""
    width, inner, _ = state["embed.weight"].shape
    embed = nn.Conv1d(inner, width, 3, padding=1, padding_mode="circular", bias=False)
    embed.weight.data = state["embed.weight"]
    words = linear(table.T, state, "gather").T

    def split(y: torch.Tensor) -> torch.Tensor:
        return y.reshape(y.shape[0], y.shape[1], heads, -1).transpose(1, 2)

    with torch.no_grad():
        queries = linear(embed(x.transpose(1, 2)).transpose(1, 2), state, "query")
    words = words[None].expand(len(x), -1, -1)
    keys, values = linear(words, state, "key"), linear(words, state, "value")
    found = functional.scaled_dot_product_attention(split(queries), split(keys), split(values))
    return linear(found.transpose(1, 2).flatten(2), state, "out")


SERIES = SeriesPatches(patch=6, stride=4)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
@pytest.mark.parametrize(
    "part",
    [
        gp.VocabularyMap(words=7),
        gp.VocabularyMap(words=7, weighting="softmax", top=3),
        gp.PatchTokens(patches=SERIES),
        gp.Prototypes(patches=SERIES, count=9, width=5, heads=2, keys=3),
    ],
    ids=["vocabulary-map", "sparse", "linear", "prototypes"],
)
@pytest.mark.parametrize("length", [6, 9])
def test_a_text_model_reads_something_else(
    name: str, part: TokenSource, length: int, tmp_path: Path
) -> None:
    model, graph = captured(name)
    _, kwargs = CASES[name].call(3)
    kwargs["attention_mask"] = torch.ones(3, length, dtype=torch.int64)
    kwargs["attention_mask"][0, -2:] = 0
    del kwargs["input_ids"]
    task = gp.compile(graph, gp.Program([part]))
    state, table = own_state(task), model.get_input_embeddings().weight
    if isinstance(part, gp.VocabularyMap):
        new: torch.Tensor = torch.randint(0, 7, (3, length))
        embeds = combined(table, state, new, part)
    else:
        new = torch.randn(3, 4 * length)
        patches = cut(new, SERIES)
        is_linear = not isinstance(part, gp.Prototypes)
        embeds = linear(patches, state, "map") if is_linear else attended(patches, table, state, 2)
    with torch.no_grad():
        expected = model(inputs_embeds=embeds, **kwargs)["logits"]
    found = task(input_ids=new, **kwargs)["logits"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    for key, value in task.named_parameters():
        assert (value.grad is not None) == key.startswith("program."), key
    gp.save(task, tmp_path / "tokens.safetensors")
    again = gp.load(tmp_path / "tokens.safetensors", graph)
    assert same(again(input_ids=new, **kwargs)["logits"], found)
    _, plain = CASES[name].call(3)
    with task.disabled():
        assert same(task(**plain)["logits"], graph(**plain)["logits"])


def images_of_tokens() -> tuple[nn.Module, gp.Graph]:
    """A text model captured for sequences of four, with a batch that varies."""
    torch.manual_seed(0)
    model = Encoder().eval().requires_grad_(False)
    ids, mask = torch.randint(1, 90, (2, 4)), torch.ones(2, 4, dtype=torch.int64)
    axes = {"input_ids": {0: "batch"}, "attention_mask": {0: "batch"}}
    return model, gp.capture(model, (), {"input_ids": ids, "attention_mask": mask}, axes)


def test_a_text_model_reads_images_patch_by_patch() -> None:
    model, graph = images_of_tokens()
    task = gp.compile(graph, gp.Program([gp.PatchTokens(patches=ImagePatches((3, 8, 8), 4))]))
    state = own_state(task)
    x, mask = torch.randn(5, 3, 8, 8), torch.ones(5, 4, dtype=torch.int64)
    rows = [x[:, :, i : i + 4, j : j + 4].flatten(1) for i in (0, 4) for j in (0, 4)]
    tokens = linear(torch.stack(rows, 1), state, "map")
    with torch.no_grad():
        handle = model.table.register_forward_hook(lambda *_: tokens)
        expected = model(torch.zeros(5, 4, dtype=torch.int64), mask)
        handle.remove()
    torch.testing.assert_close(task(x, mask), expected)


def test_series_side_by_side_are_patched_together() -> None:
    patches = SeriesPatches(patch=3, stride=2, channels=2, normalize=False)
    x = torch.randn(2, 6, 2)
    padded = torch.cat([x, x[:, -1:]], 1)
    expected = torch.stack([padded[:, start : start + 3].flatten(1) for start in (0, 2, 4)], 1)
    assert torch.equal(patches.build()(x), expected)
    assert patches.shape(3, "here") == (6, 2)


def test_a_published_series_makes_as_many_patches_as_published() -> None:
    # 512 values in patches of 16 at a stride of 8, the last value repeated: (512 − 16) / 8 + 2
    assert SeriesPatches().build()(torch.randn(2, 512)).shape == (2, 64, 16)
    part = gp.Prototypes()
    table = torch.empty(100, 24)
    context = BuildContext(torch.empty(2, 64, 24), "here", read=(torch.empty(2, 512), table))
    module = part.build(context)
    wide = 8 * 128
    expected = 32 * 16 * 3 + 101 * 1000 + 33 * wide + 2 * 25 * wide + (wide + 1) * 24
    assert sum(parameter.numel() for parameter in module.parameters()) == expected


def test_lengths_follow_in_onnx_runtime(tmp_path: Path) -> None:
    _, graph = captured("transformer")
    part = gp.Prototypes(patches=SERIES, count=9, width=5, heads=2, keys=3)
    task = gp.compile(graph, gp.Program([part]))
    gp.backends.onnx.export(task, tmp_path / "series.onnx")
    session = gp.backends.onnxruntime.Session(tmp_path / "series.onnx", "cpu")
    x, mask = torch.randn(3, 4 * 11), torch.ones(3, 11, dtype=torch.int64)
    found = torch.as_tensor(session.run(x.numpy(), mask.numpy()))
    torch.testing.assert_close(found, task(x, mask), rtol=1e-4, atol=1e-5)


def test_a_series_of_another_length_than_patches_make_is_refused() -> None:
    _, graph = captured("transformer")
    task = gp.compile(graph, gp.Program([gp.PatchTokens(patches=SERIES)]))
    with pytest.raises(
        GraphprogError, match=r"input_ids: f32\[B,4\*S\], but was given f32\[2,23\]"
    ):
        task(torch.randn(2, 23), torch.ones(2, 5, dtype=torch.int64))


class ReadsPadding(nn.Module):
    """Finds out by itself which ids are padding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        present = (ids != 0)[..., None]
        return self.head((self.table(ids) * present).sum(1))


def test_a_model_that_reads_more_of_ids_than_their_shape_is_refused() -> None:
    graph = gp.capture(ReadsPadding(), (torch.randint(0, 20, (2, 5)),))
    with pytest.raises(InterfaceError, match=r"(?s)input:ids is also read by ne.*attention_mask"):
        gp.compile(graph, gp.Program([gp.VocabularyMap(words=4)]))


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        (lambda: gp.VocabularyMap(words=0), ProgramError, "words must be an integer of at least 1"),
        (
            lambda: gp.VocabularyMap(words=3, weighting="max"),
            ProgramError,
            "weighting must be one of none, softmax, not 'max'",
        ),
        (
            lambda: gp.VocabularyMap(words=3, top=101),
            ProgramError,
            "top 101 exceeds the 100 source words",
        ),
        (
            lambda: gp.VocabularyMap(words=3, at="hidden[0]"),
            InterfaceError,
            "layers.0:out is not the",
        ),
        (lambda: gp.Prototypes(heads=0), ProgramError, "heads must be an integer of at least 1"),
        (lambda: SeriesPatches(patch=4, stride=5), ProgramError, "do not match"),
        (lambda: ImagePatches((3, 8, 9), 4), ProgramError, r"patches of 4 do not divide"),
        (
            lambda: gp.PatchTokens(patches=ImagePatches((3, 8, 8), 4)),
            InterfaceError,
            "(?s)have 4 patches, but the number of tokens varies.*examples of 4 tokens",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    part: Callable[[], gp.Manipulation], error: type[GraphprogError], message: str
) -> None:
    _, graph = captured("transformer")
    with pytest.raises(error, match=message):
        gp.compile(graph, gp.Program([part()]))


def test_tokens_are_replaced_first_and_once() -> None:
    _, graph = captured("transformer")
    with pytest.raises(PassError, match="already changed; vocabulary-map must come first"):
        gp.compile(graph, gp.Program([gp.VocabularyMap(words=3), gp.VocabularyMap(words=3)]))


def test_other_parts_act_on_the_new_tokens_and_the_new_input() -> None:
    _, graph = captured("transformer")
    vector = gp.Fixed(torch.ones(16))
    parts = [
        gp.PatchTokens(patches=SERIES),
        gp.Additive(at="tokens", value=vector, name="words"),
        gp.Additive(at="input:input_ids", value=gp.Fixed(torch.randn(1)), name="series"),
    ]
    both, plain = (gp.compile(graph, gp.Program(list(some))) for some in (parts[:2], parts[:1]))
    x, mask = torch.randn(3, 24), torch.ones(3, 6, dtype=torch.int64)
    plain.load_program_state(
        {name: value for name, value in both.program_state().items() if "words" not in name}
    )
    state = plain.program_state()
    state["program.patch_tokens.map.bias"] += 1
    plain.load_program_state(state)
    torch.testing.assert_close(both(x, mask), plain(x, mask))
    shifted = gp.compile(graph, gp.Program([parts[0], parts[2]]))
    shifted.load_program_state(
        {name: value for name, value in both.program_state().items() if "words" not in name}
    )
    plain.load_program_state(shifted.program_state())
    torch.testing.assert_close(shifted(x, mask), plain(x + parts[2].value.tensor, mask))
