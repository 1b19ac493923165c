"""Deep prompts: slots replaced, shared, derived; where they end; the methods by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import InterfaceError, PassError, ProgramError
from graphprog.spec.registry import parse_spec
from graphprog.values.entries import Derived, Shared
from tests.models import zoo

Hook = Callable[[nn.Module, object, torch.Tensor], torch.Tensor]
TOKENS = 4


def rows(entries: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return entries[None].expand(len(x), -1, -1)


def inserting(entries: torch.Tensor, offset: int) -> Hook:
    def hook(_: nn.Module, __: object, x: torch.Tensor) -> torch.Tensor:
        at = x.shape[1] if offset == -1 else offset
        return torch.cat([x[:, :at], rows(entries, x), x[:, at:]], 1)

    return hook


def replacing(entries: torch.Tensor, offset: int) -> Hook:
    def hook(_: nn.Module, __: object, x: torch.Tensor) -> torch.Tensor:
        at = x.shape[1] - TOKENS if offset == -1 else offset
        return torch.cat([x[:, :at], rows(entries, x), x[:, at + TOKENS :]], 1)

    return hook


def with_hooks(model: nn.Module, hooks: dict[str, Hook], images: torch.Tensor) -> torch.Tensor:
    handles = [
        model.get_submodule(path).register_forward_hook(hook) for path, hook in hooks.items()
    ]
    try:
        result: torch.Tensor = model(images).logits
    finally:
        for handle in handles:
            handle.remove()
    return result


@pytest.fixture(scope="module")
def vit() -> tuple[nn.Module, gp.Graph]:
    return zoo.captured("vit")


@pytest.mark.parametrize("offset", [0, 1, 3, -1])
def test_slots_are_replaced_in_front_of_every_block(
    vit: tuple[nn.Module, gp.Graph], offset: int
) -> None:
    model, graph = vit
    task = gp.compile(graph, gp.Program(gp.methods.vpt_deep(TOKENS, offset=offset)))
    first, second, third = task.program.parameters()
    hooks = {
        "vit.embeddings": inserting(first, offset),
        "vit.layers.0": replacing(second, offset),
        "vit.layers.1": replacing(third, offset),
    }
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(task(images).logits, with_hooks(model, hooks, images))
    # slots are replaced, not added to
    assert task.graph.interfaces().resolve("hidden[-1]").shape[1] == 17 + TOKENS


def test_a_range_of_depths(vit: tuple[nn.Module, gp.Graph]) -> None:
    model, graph = vit
    task = gp.compile(graph, gp.Program(gp.methods.vpt_deep(TOKENS, depth=2)))
    first, second = task.program.parameters()
    hooks = {"vit.embeddings": inserting(first, 1), "vit.layers.0": replacing(second, 1)}
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(task(images).logits, with_hooks(model, hooks, images))


def test_shared_values_are_one_parameter(vit: tuple[nn.Module, gp.Graph]) -> None:
    model, graph = vit
    task = gp.compile(graph, gp.Program(gp.methods.vpt_deep(TOKENS, shared=True)))
    (only,) = task.program.parameters()
    hooks = {
        "vit.embeddings": inserting(only, 1),
        "vit.layers.0": replacing(only, 1),
        "vit.layers.1": replacing(only, 1),
    }
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(task(images).logits, with_hooks(model, hooks, images))
    task(images).logits.sum().backward()
    assert only.grad is not None
    assert only.grad.abs().sum() > 0


def test_vision_prompts_are_a_map_of_text_prompts() -> None:
    _, graph = zoo.captured("clip")
    task = gp.compile(graph, gp.Program(gp.methods.maple(tokens=2, depth=2)))
    shapes = {name: tuple(value.shape) for name, value in task.program.named_parameters()}
    assert shapes["text.value"] == (2, 32)
    assert shapes["vision.made.weight"] == (32, 32)
    assert "vision.value" not in shapes
    _, call = zoo.CASES["clip"].call(3)
    with torch.no_grad():  # the text prompts reach the image features through the map
        before = task(**call).image_embeds
        task.program.text.value.add_(1.0)
        assert not torch.equal(task(**call).image_embeds, before)
    task(**call).logits_per_image.sum().backward()
    assert all(parameter.grad is not None for parameter in task.program.parameters())


def maple_of(
    model: nn.Module, given: dict[str, torch.Tensor], state: dict[str, torch.Tensor], tokens: int
) -> torch.Tensor:
    """MaPLe as in its paper: logits of images by texts, from the layers of a CLIP alone."""

    def tensor(part: str, name: str) -> torch.Tensor:
        (key,) = (key for key in state if key.startswith(f"program.{part}.") and key.endswith(name))
        return state[key]

    def text_prompt(name: str) -> torch.Tensor:
        return tensor(name, ".value").expand(len(ids), -1, -1)

    def vision_prompt(name: str, source: str) -> torch.Tensor:
        made = tensor(source, ".value") @ tensor(name, ".weight").T + tensor(name, ".bias")
        return made.expand(len(given["pixel_values"]), -1, -1)

    ids, tower = given["input_ids"], model.text_model
    words = tower.embeddings.token_embedding(ids)
    x = torch.cat([words[:, :1], text_prompt("text"), words[:, 1:]], 1)
    length = x.shape[1]
    x = x + tower.embeddings.position_embedding.weight[:length]
    padding = nn.functional.pad(given["attention_mask"], (tokens, 0), value=1).bool()
    allowed = torch.ones(length, length).tril().bool() & padding[:, None, None, :]
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    for number, layer in enumerate(tower.encoder.layers):
        if number:
            x = torch.cat([x[:, :1], text_prompt(f"text_{number - 1}"), x[:, 1 + tokens :]], 1)
        x = layer(x, mask)
    ends = (ids == 99).int().argmax(-1) + tokens
    x = tower.final_layer_norm(x)[torch.arange(len(ids)), ends]
    texts = nn.functional.normalize(model.text_projection(x), dim=-1)
    tower = model.vision_model
    y = torch.cat([tower.embeddings(given["pixel_values"]), vision_prompt("vision", "text")], 1)
    y = tower.pre_layrnorm(y)
    for number, layer in enumerate(tower.encoder.layers):
        if number == 1:
            y = torch.cat([y[:, :-tokens], vision_prompt("vision_0", "text_0")], 1)
        y = layer(y, None)
    y = model.visual_projection(tower.post_layernorm(y[:, 0]))
    return model.logit_scale.exp() * nn.functional.normalize(y, dim=-1) @ texts.T


def test_maple_is_that_of_the_paper() -> None:
    model, graph = zoo.captured("clip")
    task = gp.compile(graph, gp.Program(gp.methods.maple(tokens=2, depth=2)))
    state = task.program_state()
    for name, value in state.items():
        if name.endswith(".value"):
            value.normal_()
    task.load_program_state(state)
    _, given = zoo.CASES["clip"].call(3)
    with torch.no_grad():
        expected = maple_of(model, given, state, tokens=2)
        found = task(**given).logits_per_image
    assert not torch.allclose(found, model(**given).logits_per_image, atol=0.1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_pooling_head_is_told_whether_prompts_take_part() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        depth=2,
        embed_dim=48,
        num_heads=3,
        global_pool="avg",
        class_token=False,
        num_classes=5,
    ).eval()
    graph = gp.capture(model, (torch.randn(2, 3, 32, 32),))
    images = torch.randn(3, 3, 32, 32)
    seen = {}
    for until in ("", "hidden[-1]", "norm:out"):
        prompt = gp.Concatenative(at="embedding", length=TOKENS, until=until)
        task = gp.compile(graph, gp.Program([prompt]))
        entries = task.program.concatenative.value
        enter = model.norm_pre.register_forward_hook(inserting(entries, 0))
        leave = model.blocks[-1].register_forward_hook(
            lambda _, __, x, drop=bool(until): x[:, TOKENS:] if drop else x
        )
        seen[until] = task(images)
        assert torch.equal(seen[until], model(images)), until
        enter.remove()
        leave.remove()
    assert not torch.equal(seen[""], seen["norm:out"])


@pytest.mark.parametrize("offset", [0, 2, -1])
def test_an_output_without_the_inserted_tokens(offset: int) -> None:
    _, graph = zoo.captured("gpt2")
    args, kwargs = zoo.CASES["gpt2"].call(3)
    longer, own = (
        gp.compile(
            graph,
            gp.Program([gp.Concatenative(at="tokens", length=3, offset=offset, until=until)]),
        )(*args, **kwargs).logits
        for until in ("", "logits")
    )
    kept = [
        at
        for at in range(9)
        if not (6 if offset == -1 else offset) <= at < (9 if offset == -1 else offset + 3)
    ]
    assert own.shape[1] == 6
    assert torch.equal(own, longer[:, kept])


def test_where_prompts_cannot_end(vit: tuple[nn.Module, gp.Graph]) -> None:
    _, graph = vit
    with pytest.raises(PassError, match="do not stand on axis 1 at 'logits'"):
        gp.compile(graph, gp.Program([gp.Concatenative(at="embedding", length=2, until="logits")]))


def test_shares_and_maps_need_as_many_entries(vit: tuple[nn.Module, gp.Graph]) -> None:
    _, graph = vit
    for value in (Shared("prompt"), Derived("prompt")):
        with pytest.raises(ProgramError, match="'prompt' shares a value of shape"):
            gp.compile(
                graph,
                gp.Program(
                    [
                        gp.Concatenative(at="embedding", length=4, name="prompt"),
                        gp.Replacement(at="hidden[0]", length=3, value=value),
                    ]
                ),
            )


def test_slots_must_exist(vit: tuple[nn.Module, gp.Graph]) -> None:
    _, graph = vit
    with pytest.raises(InterfaceError, match="has 17 entries on axis 1, but 30 are needed"):
        gp.compile(graph, gp.Program([gp.Replacement(at="hidden[0]", length=30)]))


def test_ranges_and_negative_depths(vit: tuple[nn.Module, gp.Graph]) -> None:
    _, graph = vit
    table = graph.interfaces()
    assert table.resolve("hidden[-1]") == table.resolve("hidden[2]")
    assert [i.aliases for i in table.resolve_all("hidden[:-1]")] == [
        ("hidden[0]",),
        ("hidden[1]",),
    ]
    with pytest.raises(InterfaceError, match=r"'hidden\[7:\]' is empty: there are 3 places"):
        table.resolve_all("hidden[7:]")
    with pytest.raises(InterfaceError, match=r"no interface 'hidden\[-4\]'"):
        table.resolve("hidden[-4]")


def test_programs_of_methods_print_and_parse() -> None:
    for parts in (
        gp.methods.prompt_tuning(),
        gp.methods.p_tuning(encoder="lstm"),
        gp.methods.vpt_shallow(init=gp.initializers.PatchUniform(8)),
        gp.methods.vpt_deep(shared=True),
        gp.methods.maple(depth=3),
    ):
        program = gp.Program(parts)
        assert parse_spec(str(program)) == program


@pytest.mark.parametrize("kind", [gp.Replacement, gp.Concatenative])
@pytest.mark.parametrize("field", ["length", "offset"])
def test_places_beyond_any_axis_are_refused(kind: type[gp.Manipulation], field: str) -> None:
    sizes = {"length": 2, field: 10**30}
    with pytest.raises(ProgramError, match=rf"{field} is 1\.000e\+30, beyond the end of any axis"):
        kind(at="tokens", **sizes)
