"""Methods by name against forwards of a small decoder that are written from their papers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphprog as gp

WIDTH, HEADS, SIZE = 8, 2, 4
Change = Callable[[Tensor, int], Tensor]


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.q, self.k, self.v, self.out = (
            nn.LayerNorm(WIDTH),
            *(nn.Linear(WIDTH, WIDTH) for _ in range(4)),
        )
        self.norm2, self.up, self.down = (
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, 16),
            nn.Linear(16, WIDTH),
        )
        self.act, self.mlp_in, self.mlp_out = nn.GELU(), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        parts = (layer(h).unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for layer in self.qkv())
        read = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(read.transpose(1, 2).flatten(2))
        h = self.mlp_in(self.norm2(x))
        return x + self.mlp_out(self.down(self.act(self.up(h))))

    def qkv(self) -> tuple[nn.Module, ...]:
        return self.q, self.k, self.v


class Decoder(nn.Module):
    """Two layers with learned positions; the head is the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.positions = nn.Embedding(20, WIDTH), nn.Embedding(32, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(2))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids) + self.positions(torch.arange(ids.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return x @ self.table.weight.T


def plain(x: Tensor, layer: int) -> Tensor:
    return x


def forward(
    model: Decoder,
    x: Tensor,
    start: int = 0,
    prefixes: list[tuple[Tensor, Tensor]] | None = None,
    **changes: Change,
) -> Tensor:
    """The decoder on embedded words, one operation at a time.

    Args:
        model: the weights.
        x: embedded words without positions.
        start: the position of the first of them.
        prefixes: keys and values [n, width] before those of each layer.
        changes: what a method does to the values called so.
    """

    def at(name: str, value: Tensor, number: int) -> Tensor:
        return changes.get(name, plain)(value, number)

    x = x + model.positions.weight[start : start + x.shape[1]]
    for number, layer in enumerate(model.layers):
        h = layer.norm(x)
        q = layer.q(h)
        k, v = at("keys", layer.k(h), number), at("values", layer.v(h), number)
        before = 0
        if prefixes is not None:
            before = len(prefixes[number][0])
            more = [part.expand(len(x), -1, -1) for part in prefixes[number]]
            k, v = torch.cat([more[0], k], 1), torch.cat([more[1], v], 1)
        heads = []
        for head in range(HEADS):
            own = slice(head * SIZE, (head + 1) * SIZE)
            scores = q[..., own] @ k[..., own].mT / math.sqrt(SIZE)
            future = torch.ones(scores.shape[-2:]).triu(before + 1).bool()
            heads.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v[..., own])
        read = torch.cat(heads, -1)
        if "prompt_attention" in changes:
            read = read + changes["prompt_attention"](q, number)
        x = x + at("attention", layer.out(read), number)
        h = layer.norm2(x)
        inner = at("inner", functional.gelu(layer.up(h)), number)
        out = at("feed_forward", layer.down(inner), number)
        x = x + out + (changes["beside"](h, number) if "beside" in changes else 0)
    return x @ model.table.weight.T


@cache
def captured() -> tuple[Decoder, gp.Graph, Tensor]:
    torch.manual_seed(0)
    model = Decoder().eval().requires_grad_(False)
    graph = gp.capture(
        model, (torch.randint(20, (2, 5)),), dynamic_axes={"ids": {0: "batch", 1: "words"}}
    )
    return model, graph, torch.randint(20, (3, 6))


def drawn(parts: tuple[gp.Manipulation, ...]) -> tuple[gp.ReprogrammedModel, dict[str, Tensor]]:
    """A task whose tensors are drawn anew, because some start at zero."""
    task = gp.compile(captured()[1], gp.Program(parts))
    state = {name: torch.randn_like(value) * 0.5 for name, value in task.program_state().items()}
    task.load_program_state(state)
    return task, {name.removeprefix("program."): value for name, value in state.items()}


def bottleneck(
    state: Mapping[str, Tensor], name: str, act: Callable[[Tensor], Tensor]
) -> Callable[[Tensor, int], Tensor]:
    def added(h: Tensor, number: int) -> Tensor:
        down, up = (
            (state[f"{name}_{number}.{part}.weight"], state[f"{name}_{number}.{part}.bias"])
            for part in ("down", "up")
        )
        return act(h @ down[0].T + down[1]) @ up[0].T + up[1]

    return added


@torch.no_grad()
def test_prompt_tuning() -> None:
    model, _, ids = captured()
    task, state = drawn(gp.methods.prompt_tuning(tokens=4))
    prompt = state["prompt.value"].expand(3, -1, -1)
    expected = forward(model, torch.cat([prompt, model.table(ids)], 1))
    torch.testing.assert_close(task(ids), expected)


def test_the_defaults_are_those_of_the_papers() -> None:
    assert gp.methods.prompt_tuning()[0].length == 100
    (prefix,) = gp.methods.prefix_tuning()
    assert (prefix.length, prefix.value.hidden, prefix.value.activation) == (10, 512, "tanh")
    assert gp.methods.llama_adapter("a", "b", ("c",), ("d",), 2)[0].squash == "tanh"


@torch.no_grad()
@pytest.mark.parametrize("method", ["prefix_tuning", "p_tuning_v2"])
def test_prefix_tuning(method: str) -> None:
    model, _, ids = captured()
    if method == "prefix_tuning":
        task, state = drawn(gp.methods.prefix_tuning(tokens=3, hidden=6, inputs=5))
        inputs, first, bias, second, shift = sorted_network(state)
        rows = torch.tanh(inputs @ first.T + bias) @ second.T + shift
        assert len(state) == 5
    else:
        task, state = drawn(gp.methods.p_tuning_v2(tokens=3))
        (rows,) = state.values()
    layers = rows.unflatten(-1, (2, 2, WIDTH))
    prefixes = [(layers[:, number, 0], layers[:, number, 1]) for number in range(2)]
    expected = forward(model, model.table(ids), start=3, prefixes=prefixes)
    torch.testing.assert_close(task(ids), expected)


def sorted_network(state: Mapping[str, Tensor]) -> list[Tensor]:
    """Inputs of a network of linear layers, and its weights and biases in order."""
    inputs = [value for name, value in state.items() if "weight" not in name and "bias" not in name]
    layers = [value for name, value in state.items() if "weight" in name or "bias" in name]
    weights = [value for value in layers if value.ndim == 2]
    biases = [value for value in layers if value.ndim == 1]
    pairs = [part for pair in zip(weights, biases, strict=True) for part in pair]
    return [*inputs, *pairs]


@torch.no_grad()
def test_p_tuning() -> None:
    model, _, ids = captured()
    task, state = drawn(gp.methods.p_tuning(tokens=3, hidden=6))
    x, *layers = sorted_network(state)
    for number in range(0, 6, 2):
        x = x @ layers[number].T + layers[number + 1]
        x = x.relu() if number < 4 else x
    expected = forward(model, torch.cat([x.expand(3, -1, -1), model.table(ids)], 1))
    torch.testing.assert_close(task(ids), expected)


@torch.no_grad()
def test_p_tuning_with_a_recurrent_encoder() -> None:
    model, _, ids = captured()
    task, state = drawn(gp.methods.p_tuning(tokens=3, hidden=6, encoder="lstm"))
    recurrent = nn.LSTM(WIDTH, 6, num_layers=2, bidirectional=True, batch_first=True)
    for name, parameter in recurrent.named_parameters():
        (key,) = (key for key in state if key.endswith(f".{name}"))
        parameter.copy_(state.pop(key))
    inputs, first, bias, second, shift = sorted_network(state)
    found = recurrent(inputs[None])[0] @ first.T + bias
    rows = found.relu() @ second.T + shift
    expected = forward(model, torch.cat([rows.expand(3, -1, -1), model.table(ids)], 1))
    torch.testing.assert_close(task(ids), expected)


@torch.no_grad()
def test_prompts_of_low_rank_and_in_a_subspace() -> None:
    model, _, ids = captured()
    words = model.table(ids)
    task, state = drawn(gp.methods.mpt(tokens=3, rank=2))
    parts = {value.shape: value for value in state.values()}
    assert set(parts) == {(3, WIDTH), (3, 2), (2, WIDTH)}
    prompt = parts[3, WIDTH] * (parts[3, 2] @ parts[2, WIDTH])
    expected = forward(model, torch.cat([prompt.expand(3, -1, -1), words], 1))
    torch.testing.assert_close(task(ids), expected)
    task, state = drawn(gp.methods.bbt(tokens=3, size=5))
    parts = {value.shape: value for value in state.values()}
    assert [value.shape for value in task.program.parameters()] == [(5,)]  # z alone is trained
    prompt = parts[3, WIDTH] + (parts[3 * WIDTH, 5] @ parts[(5,)]).reshape(3, WIDTH)
    expected = forward(model, torch.cat([prompt.expand(3, -1, -1), words], 1))
    torch.testing.assert_close(task(ids), expected)


@torch.no_grad()
def test_ia3() -> None:
    model, _, ids = captured()
    task, state = drawn(gp.methods.ia3())

    def scaled(name: str) -> Change:
        keys = [key for key in state if key.startswith(name)]
        return lambda x, number: x * state[keys[number]]

    changes = {"keys": "keys_", "values": "values_", "inner": "feed_forward_"}
    expected = forward(
        model, model.table(ids), **{name: scaled(key) for name, key in changes.items()}
    )
    torch.testing.assert_close(task(ids), expected)


@torch.no_grad()
def test_adapters() -> None:
    model, _, ids = captured()
    x = model.table(ids)
    task, state = drawn(gp.methods.houlsby(reduction=4))
    first, second = (
        bottleneck(state, name, functional.silu)
        for name in ("attention_adapter", "feed_forward_adapter")
    )
    expected = forward(
        model,
        x,
        attention=lambda h, number: h + first(h, number),
        feed_forward=lambda h, number: h + second(h, number),
    )
    torch.testing.assert_close(task(ids), expected)
    task, state = drawn(gp.methods.pfeiffer(reduction=4))
    only = bottleneck(state, "adapter", torch.relu)
    expected = forward(model, x, feed_forward=lambda h, number: h + only(h, number))
    torch.testing.assert_close(task(ids), expected)
    task, state = drawn(gp.methods.parallel_adapter())
    beside = bottleneck(state, "adapter", torch.relu)
    expected = forward(model, x, beside=lambda h, number: 4 * beside(h, number))
    torch.testing.assert_close(task(ids), expected, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_loreft() -> None:
    """At the first token and the last two, with R of a QR decomposition."""
    model, _, ids = captured()
    task, state = drawn(gp.methods.loreft("layers.*.mlp_out:out", rank=3, first=1, last=2))

    def edited(h: Tensor, number: int) -> Tensor:
        rows, weight, bias = (
            state[f"loreft_{number}.{name}"] for name in ("rows", "aim.weight", "aim.bias")
        )
        q, r = torch.linalg.qr(rows.T)
        basis = (q * r.diagonal().sign()).T
        new = h + (h @ weight.T + bias - h @ basis.T) @ basis
        return torch.cat([new[:, :1], h[:, 1:-2], new[:, -2:]], 1)

    expected = forward(model, model.table(ids), feed_forward=edited)
    torch.testing.assert_close(task(ids), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_llama_adapter() -> None:
    model, _, ids = captured()
    paths = {
        name: (f"source.layers.*.{name}.weight", f"source.layers.*.{name}.bias") for name in "kv"
    }
    parts = gp.methods.llama_adapter(
        "layers.*.out:in", "layers.*.q:out", paths["k"], paths["v"], HEADS, length=3
    )
    task, state = drawn(parts)

    def prompt_attention(q: Tensor, number: int) -> Tensor:
        prompt = state[f"adaption_prompt_{number}.prompt"]
        gate = state[f"adaption_prompt_{number}.gate"]
        k, v = model.layers[number].k(prompt), model.layers[number].v(prompt)
        heads = []
        for head in range(HEADS):
            own = slice(head * SIZE, (head + 1) * SIZE)
            weights = (q[..., own] @ k[:, own].T / math.sqrt(SIZE)).softmax(-1)
            heads.append(torch.tanh(gate[head]) * weights @ v[:, own])
        return torch.cat(heads, -1)

    expected = forward(model, model.table(ids), prompt_attention=prompt_attention)
    torch.testing.assert_close(task(ids), expected)


def changed(layers: Callable[[Layer, int], None]) -> Decoder:
    """A copy of the decoder, with the weights of its layers changed."""
    model = copy.deepcopy(captured()[0])
    for number, layer in enumerate(model.layers):
        layers(layer, number)
    return model


@torch.no_grad()
@pytest.mark.parametrize("method", ["lora", "dora", "vera"])
def test_changes_of_weights(method: str) -> None:
    _, _, ids = captured()
    layers = ("attention[*].q_proj", "mlp[*].up_proj")
    options = {} if method == "vera" else {"alpha": 3.0}
    task, state = drawn(getattr(gp.methods, method)(rank=2, layers=layers, **options))

    def change(layer: Layer, number: int) -> None:
        for name, linear in (("q_proj", layer.q), ("up_proj", layer.up)):
            part = f"{method}_{name}_{number}"
            if method == "vera":
                b, d = state[f"{part}.outer"], state[f"{part}.inner"]
                linear.weight += b.diag() @ state[f"{part}.up"] @ d.diag() @ state[f"{part}.down"]
                continue
            linear.weight += 3.0 / 2 * state[f"{part}.up.weight"] @ state[f"{part}.down.weight"]
            if method == "dora":
                length = linear.weight.square().sum(1, keepdim=True).sqrt()
                linear.weight.copy_(state[f"{part}.length"][:, None] * linear.weight / length)

    model = changed(change)
    torch.testing.assert_close(task(ids), forward(model, model.table(ids)), rtol=1e-4, atol=1e-4)
    fresh = gp.compile(captured()[1], gp.Program(task.spec.manipulations))
    torch.testing.assert_close(fresh(ids), captured()[1](ids))
    if method == "vera":  # layers share the random matrices
        assert torch.equal(fresh.program.vera_q_proj_0.up, fresh.program.vera_q_proj_1.up)


@torch.no_grad()
def test_changes_of_biases_and_norms() -> None:
    _, _, ids = captured()
    task, state = drawn(gp.methods.bitfit())

    def biases(layer: Layer, number: int) -> None:
        layers = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "out"}
        for name, own in {**layers, "up_proj": "up", "down_proj": "down"}.items():
            layer.get_submodule(own).bias += state[f"bias_{name}_{number}.value"]
        for place, norm in ((2 * number, layer.norm), (2 * number + 1, layer.norm2)):
            norm.bias += state[f"bias_norm_{place}.value"]

    model = changed(biases)
    torch.testing.assert_close(task(ids), forward(model, model.table(ids)))
    task, state = drawn(gp.methods.ln_tuning())

    def norms(layer: Layer, number: int) -> None:
        for place, norm in ((2 * number, layer.norm), (2 * number + 1, layer.norm2)):
            norm.weight += state[f"norm_weight_{place}.value"]
            norm.bias += state[f"norm_bias_{place}.value"]

    model = changed(norms)
    torch.testing.assert_close(task(ids), forward(model, model.table(ids)))
    assert sum(value.numel() for value in state.values()) == 2 * 4 * WIDTH


@torch.no_grad()
def test_trainable_tokens() -> None:
    model, _, ids = captured()
    task, state = drawn(gp.methods.trainable_tokens((3, 7, int(ids[0, 0]))))
    table = model.table.weight.clone()
    table[[3, 7, int(ids[0, 0])]] += state["trainable_tokens.value"]
    torch.testing.assert_close(task(ids), forward(model, table[ids]))


def test_what_changes_of_weights_refuse() -> None:
    graph = captured()[1]

    def refused(part: gp.Manipulation) -> str:
        with pytest.raises(gp.errors.GraphprogError) as error:
            gp.compile(graph, gp.Program([part]))
        return str(error.value)

    assert "rank 9 is above the width 8 of the layer 8 -> 8" in refused(
        *gp.methods.lora(rank=9, layers=("attention[0].q_proj",))
    )
    assert "is not the result of an affine layer" in refused(
        gp.LowRankUpdate(at="layers.0.norm:out")
    )
    first = gp.Scale(at="layers.0.q:out")
    with pytest.raises(gp.errors.InterfaceError, match="not the plain result"):
        gp.compile(graph, gp.Program([first, *gp.methods.dora(layers=("layers.0.q",))]))
    with pytest.raises(gp.errors.ProgramError, match="is not its result"):
        gp.LowRankUpdate(at="layers.0.q:in")
    with pytest.raises(gp.errors.ProgramError, match="is not one"):
        gp.WeightUpdate(at="layers.0.q")
    with pytest.raises(gp.errors.ProgramError, match="different ids"):
        gp.TokenUpdate((1, 1))
    assert "does not hold the ids" in refused(gp.TokenUpdate((1,), ids="tokens"))


@torch.no_grad()
def test_reprogbert() -> None:
    model, _, _ = captured()
    task, state = drawn(gp.methods.reprogbert(words=7))
    (theta,) = state.values()
    ids = torch.randint(7, (3, 6))
    words = theta @ model.table.weight
    torch.testing.assert_close(task(ids), forward(model, words[ids]))


@torch.no_grad()
def test_r2dl() -> None:
    model, _, _ = captured()
    task, state = drawn(gp.methods.r2dl(words=7, top=4))
    (theta,) = state.values()
    ids = torch.randint(7, (3, 6))
    words = torch.zeros(7, WIDTH)
    for target, row in enumerate(theta):
        for source in sorted(range(20), key=lambda word: -abs(float(row[word])))[:4]:
            words[target] += row[source] * model.table.weight[source]
    torch.testing.assert_close(task(ids), forward(model, words[ids]))


@torch.no_grad()
@pytest.mark.parametrize(("patch", "stride"), [(6, 2), (4, 4), (4, 2)])
def test_time_llm(patch: int, stride: int) -> None:
    model, _, _ = captured()
    task, state = drawn(gp.methods.time_llm(patch, stride, prototypes=5))
    state = {name.removeprefix("time_llm."): value for name, value in state.items()}
    series = torch.randn(3, 4 * stride + patch)
    deviation = (series.var(1, correction=0, keepdim=True) + 1e-5).sqrt()  # as reversible norms do
    normal = (series - series.mean(1, keepdim=True)) / deviation
    long = torch.cat([normal, *[normal[:, -1:]] * stride], 1)
    count = (series.shape[1] - patch) // stride + 2  # the paper's number of patches
    cut = [long[:, stride * n : stride * n + patch] for n in range(count)]
    kernel = state["embed.weight"]  # [width, patch, 3], over a ring of patches
    embedded = torch.stack(
        [
            sum(cut[(n + side - 1) % count] @ kernel[:, :, side].T for side in range(3))
            for n in range(count)
        ],
        1,
    )
    words = state["gather.weight"] @ model.table.weight + state["gather.bias"][:, None]

    def projected(name: str, x: Tensor) -> list[Tensor]:
        return (x @ state[f"{name}.weight"].T + state[f"{name}.bias"]).split(128, -1)

    heads = [
        (q @ k.T / math.sqrt(128)).softmax(-1) @ v
        for q, k, v in zip(
            projected("query", embedded),
            projected("key", words),
            projected("value", words),
            strict=True,
        )
    ]
    tokens = torch.cat(heads, -1) @ state["out.weight"].T + state["out.bias"]
    expected = forward(model, tokens)
    assert (task(series) - expected).abs().max() < 1e-5 * expected.abs().max()
