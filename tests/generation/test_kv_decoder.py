"""A KV cache derived from the graph: what it computes for new tokens, and where it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import PassError, ProgramError
from graphprog.passes.kv.kv_cache import CacheKV
from tests.models import decoder_models as models
from tests.models.decoder_models import Decoder

TOKENS = 64
_FAST = ("gpt2", "llama", "opt", "bloom", "windows", "written out")
_DECODERS = [
    pytest.param(name, marks=() if name in _FAST else pytest.mark.slow) for name in models.DECODERS
]


def _logits(result: Any) -> Tensor:
    found: Tensor = result["logits"]
    return found


@pytest.mark.parametrize("name", _DECODERS)
def test_a_decoder_writes_the_same_with_a_cache(name: str) -> None:
    """64 tokens, one after the other: their logits are those of the graph that reads all."""
    _, graph = models.decoder(name)
    ids, mask = models.ids_of(2, 9), torch.ones(2, 9, dtype=torch.int64)
    mask[1, :3] = 0
    _compare(graph, {"input_ids": ids, "attention_mask": mask})


@pytest.mark.parametrize("name", ["t5", pytest.param("bart", marks=pytest.mark.slow), "whisper"])
def test_a_decoder_keeps_what_an_encoder_gives(name: str) -> None:
    """The encoder is run once: its inputs are none of the graph that writes."""
    _, graph = models.two_towers(name)
    cached = _compare(graph, models.towers_call(name, 2, 7, 4))
    taken = set(cached.decode.call_spec.inputs)
    assert not taken & {"input_ids", "input_features"}
    assert not any(path.startswith("model.encoder") for path in _modules(cached.decode))


def _modules(graph: gp.Graph) -> set[str]:
    stacks = (node.meta.get("nn_module_stack", {}) for node in graph.code.nodes)
    return {path for stack in stacks for path, _ in stack.values()}


def _compare(graph: gp.Graph, inputs: dict[str, Tensor]) -> gp.generation.CachedDecoder:
    cached = gp.with_kv_cache(graph)
    roles = cached.roles
    cache = None
    written = []
    for _ in range(TOKENS):
        logits, cache = cached.advance(inputs, cache)
        written.append(logits[:, -1:])
        inputs = roles.grown(inputs, logits[:, -1].argmax(-1))
    whole = _logits(_call(graph, inputs))[:, -1 - TOKENS : -1]
    found = torch.cat(written, 1)
    assert torch.allclose(whole, found, rtol=0, atol=1e-5 * float(whole.abs().max()))
    assert torch.equal(whole.argmax(-1), found.argmax(-1))
    assert len(found.argmax(-1).unique()) > 3  # it does not say one thing again and again
    return cached


def _call(graph: gp.Graph, inputs: dict[str, Tensor]) -> dict[str, Any]:
    with torch.no_grad():
        found = graph.run([inputs[name] for name in graph.call_spec.inputs])
    return dict(zip(graph.outputs, found, strict=True))


def test_several_tokens_at_once_and_none_before() -> None:
    """A graph that decodes takes any number of tokens, with any number before them, or none."""
    _, graph = models.decoder("llama")
    cached = gp.with_kv_cache(graph)
    ids = models.ids_of(2, 12)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    whole = _logits(_call(graph, inputs))
    first = {name: value[:, :5] for name, value in inputs.items()}
    _, cache = cached.advance(first)
    assert cache["past_key_0"].shape == (2, 2, 5, 8)  # each of the 2 key heads once, for 4 of q
    more, _ = cached.advance(inputs, cache)
    assert torch.allclose(more, whole[:, 5:], atol=1e-5)
    nothing = {name: value[:, :, :0] for name, value in cache.items()}
    alone, _ = cached.advance(inputs, nothing)
    assert torch.allclose(alone, whole, atol=1e-5)


def test_a_cache_of_a_task_reads_its_program() -> None:
    """Prefix tuning goes on in front of what was written, and training is followed."""
    _, graph = models.decoder("gpt2")
    task = gp.compile(graph, gp.Program(gp.methods.prefix_tuning(tokens=3, hidden=None)))
    inputs = {"input_ids": models.ids_of(2, 6), "attention_mask": torch.ones(2, 6).long()}
    _compare(task.graph, inputs)
    cached = gp.with_kv_cache(task)
    before, _ = cached.advance(inputs)
    with torch.no_grad():
        for value in task.program.parameters():
            value.mul_(3.0)
    after, _ = cached.advance(inputs)
    assert not torch.allclose(before, after, atol=1e-3)


def test_masks_are_made_of_their_last_rows_alone() -> None:
    """The mask of one new token is never computed for all."""
    _, graph = models.decoder("gpt2")
    decode = CacheKV().run(graph)
    letters = {str(size) for size in decode.symbols.values()}
    assert {"B", "S", "P"} <= letters
    square = [
        node.name
        for node in decode.code.nodes
        if isinstance(value := node.meta.get("val"), Tensor)
        and value.ndim >= 2
        and str(value.shape[-1]) == str(value.shape[-2])
        and not isinstance(value.shape[-1], int)
    ]
    assert square == []


def _greedy(model: nn.Module, prompt: Tensor, ids: list[int], length: int) -> tuple[int, ...]:
    """What the model itself says after its embeddings with a prompt before them."""
    words = model.get_input_embeddings()
    written = list(ids)
    for _ in range(length):
        longer = torch.cat([prompt[None], words(torch.tensor([written]))], 1)
        with torch.no_grad():
            written.append(int(model(inputs_embeds=longer).logits[0, -1].argmax()))
    return tuple(written[len(ids) :])


@pytest.mark.parametrize("until", ["", "logits"])
def test_a_tuned_prompt_generates_in_one_call(until: str) -> None:
    model, graph = models.decoder("llama")
    value = gp.Learnable("normal", 0.5)
    part = gp.Concatenative(at="tokens", length=3, value=value, until=until, name="prompt")
    task = gp.compile(graph, gp.Program([part]))
    prompts = [models.ids_of(1, 5)[0].tolist(), models.ids_of(2, 3)[1].tolist()]
    found = gp.generate(task, prompts, max_new_tokens=6, ends=[])
    tuned = task.program_state()["program.prompt.value"]
    assert [tuple(text.ids) for text in found] == [_greedy(model, tuned, p, 6) for p in prompts]
    with pytest.raises(PassError, match=r"attention is over .* tokens"):
        CacheKV()(task.graph)


def test_a_prompt_that_cannot_be_stored_is_refused_with_what_works() -> None:
    _, graph = models.decoder("llama")
    task = gp.compile(graph, gp.Program([gp.Concatenative(at="tokens", length=3, offset=1)]))
    prompt = [models.ids_of(1, 5)[0].tolist()]
    with pytest.raises(PassError, match="unless it is precomputed") as error:
        gp.generate(task, prompt, max_new_tokens=2, ends=[])
    assert "use_cache=False" in str(error.value)
    assert len(gp.generate(task, prompt, max_new_tokens=2, ends=[], use_cache=False)[0].ids) == 2


class _Mixed(nn.Module):
    """Tokens that read those before them by attention, and by what is put between."""

    def __init__(self, between: str) -> None:
        super().__init__()
        self.between = between
        self.words = nn.Embedding(31, 16)
        self.narrow = nn.Conv1d(16, 16, 3)
        self.head = nn.Linear(16, 31)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits."""
        x = self.words(ids)
        if self.between == "convolution":
            x = x + self.narrow(functional.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2)
        if self.between == "sum":
            x = x.cumsum(1)
        if self.between == "mean":
            x = x + x.mean(1, keepdim=True)
        q = x.unflatten(-1, (2, 8)).transpose(1, 2)
        causal = self.between != "both ways"
        y = functional.scaled_dot_product_attention(q, q, q, is_causal=causal)
        return self.head(x + y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("between", "told"),
    [
        ("convolution", "conv1d.*\n.*test_kv_decoder.py"),
        ("sum", "cumsum.*\n.*test_kv_decoder.py"),
        ("mean", "add.*\n.*test_kv_decoder.py"),
        ("both ways", "tokens see later tokens"),
    ],
)
@pytest.mark.parametrize("derive", [gp.with_kv_cache, CacheKV()], ids=["cached", "pass alone"])
def test_what_has_no_cache_is_refused_by_name(
    derive: Callable[[gp.Graph], object], between: str, told: str
) -> None:
    """The operation that reads other tokens is named, with the line it comes from."""
    torch.manual_seed(0)
    ids = torch.randint(31, (2, 7))
    graph = gp.capture(_Mixed(between).eval(), (ids,), {}, {"ids": {0: "batch", 1: "sequence"}})
    with pytest.raises(PassError, match=f"(?s)cannot have a KV cache.*{told}"):
        derive(graph)


def test_what_writes_nothing_is_refused() -> None:
    """Fixed lengths, no attention, and results for no token in particular."""
    ids = torch.randint(31, (2, 7))
    fixed = gp.capture(_Mixed("").eval(), (ids,), {}, {"ids": {0: "batch"}})
    with pytest.raises(PassError, match="the number of tokens is fixed: 7"):
        gp.with_kv_cache(fixed)
    plain = gp.capture(nn.Linear(4, 4).eval(), (torch.rand(2, 4),))
    with pytest.raises(PassError, match="no attention"):
        gp.with_kv_cache(plain)
    with pytest.raises(ProgramError, match="not a Linear"):
        gp.with_kv_cache(nn.Linear(4, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize("wanted", ["none", "logits"])
def test_results_and_positions_of_any_form_have_a_cache(wanted: str) -> None:
    """A result besides the logits that is not a tensor; positions without a dimension for rows."""
    torch.manual_seed(0)
    places = torch.arange(7) if wanted == "logits" else torch.arange(7).expand(2, 7).contiguous()
    ids = torch.randint(31, (2, 7))
    axes = {"places": {places.ndim - 1: "sequence"}, "ids": {0: "batch", 1: "sequence"}}
    if places.ndim == 2:
        axes["places"][0] = "batch"
    model = Decoder(wanted).eval()
    cached = gp.with_kv_cache(gp.capture(model, (), {"places": places, "ids": ids}, axes))
    first = {"places": places[..., :4], "ids": ids[:, :4]}
    _, cache = cached.advance(first)
    found, _ = cached.advance({"places": places, "ids": ids}, cache)
    whole = model(places, ids)
    whole = whole[1] if wanted == "none" else whole
    assert torch.allclose(found, whole[:, 4:], atol=1e-5)
