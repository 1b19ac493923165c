"""Losses by token against those of transformers on the longer sequence, labels padded by -100."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import graphprog as gp
from graphprog.compiler.inserted_entries import inserted, original
from graphprog.errors import DataError, ProgramError
from graphprog.train import losses

VOCABULARY, BATCH, LENGTH, PROMPT = 50, 3, 9, 4
PAD = 1
SIZES = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": PAD}


def gpt2(kind: str) -> nn.Module:
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=16, num_labels=5, **SIZES)
    return make(getattr(transformers, f"GPT2{kind}"), config)


def llama(kind: str) -> nn.Module:
    config = transformers.LlamaConfig(
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=16,
        intermediate_size=24, num_labels=5, **SIZES,
    )  # fmt: skip
    return make(getattr(transformers, f"Llama{kind}"), config)


def bert(kind: str) -> nn.Module:
    config = transformers.BertConfig(
        num_hidden_layers=2, num_attention_heads=2, hidden_size=16, intermediate_size=24,
        num_labels=2 if kind == "ForQuestionAnswering" else 5, **SIZES,
    )  # fmt: skip
    return make(getattr(transformers, f"Bert{kind}"), config)


def make(kind: type[nn.Module], config: Any) -> nn.Module:
    config.use_cache = False
    torch.manual_seed(0)
    model = kind(config).eval().requires_grad_(False)
    for parameter in model.parameters():  # far from the start, where all logits are alike
        parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return model


def tokens(side: str = "right") -> tuple[Tensor, Tensor]:
    """Ids and mask; the second and the third row are padded on a side."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (BATCH, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    for row, count in ((1, 2), (2, 5)):
        place = slice(LENGTH - count, None) if side == "right" else slice(0, count)
        ids[row, place], mask[row, place] = PAD, 0
    return ids, mask


@functools.cache
def captured(family: Callable[[str], nn.Module], kind: str) -> tuple[Any, gp.Graph]:
    model = family(kind)
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    ids, mask = tokens()
    example = {"input_ids": ids[:, :6], "attention_mask": mask[:, :6]}
    return model, gp.capture(model, (), example, dynamic_axes=axes)


def prompted(graph: gp.Graph, *more: gp.Manipulation, **options: Any) -> gp.ReprogrammedModel:
    value = gp.Learnable("normal", 0.5)
    prompt = gp.Concatenative(at="tokens", length=PROMPT, value=value, name="prompt", **options)
    return gp.compile(graph, gp.Program([prompt, *more]))


def reference(
    model: nn.Module,
    task: gp.ReprogrammedModel,
    ids: Tensor,
    mask: Tensor,
    offset: int,
    **labels: Tensor,
) -> tuple[Any, nn.Parameter]:
    """The model on the embeddings with the prompt among them, and the prompt's own parameter."""
    prompt = nn.Parameter(task.program_state()["program.prompt.value"].clone())
    words = model.get_input_embeddings()(ids)
    entries = prompt.expand(len(ids), -1, -1)
    longer = torch.cat([words[:, :offset], entries, words[:, offset:]], 1)
    present = mask.new_ones(len(ids), PROMPT)
    longer_mask = torch.cat([mask[:, :offset], present, mask[:, offset:]], 1)
    return model(inputs_embeds=longer, attention_mask=longer_mask, **labels), prompt


def padded(labels: Tensor, offset: int) -> Tensor:
    ignored = labels.new_full((len(labels), PROMPT), losses.IGNORED)
    return torch.cat([labels[:, :offset], ignored, labels[:, offset:]], 1)


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, of)
    return found


@pytest.mark.parametrize(
    ("family", "offset", "side"),
    [
        *((gpt2, 0, "right"), (gpt2, 2, "left"), (llama, 0, "left"), (llama, 2, "right")),
        pytest.param(gpt2, 0, "left", marks=pytest.mark.slow),
        pytest.param(gpt2, 2, "right", marks=pytest.mark.slow),
        pytest.param(llama, 0, "right", marks=pytest.mark.slow),
        pytest.param(llama, 2, "left", marks=pytest.mark.slow),
    ],
)
def test_language_modeling(family: Callable[[str], nn.Module], offset: int, side: str) -> None:
    model, graph = captured(family, "LMHeadModel" if family is gpt2 else "ForCausalLM")
    task, (ids, mask) = prompted(graph, offset=offset), tokens(side)
    labels = ids.masked_fill(mask == 0, losses.IGNORED)
    expected, prompt = reference(model, task, ids, mask, offset, labels=padded(labels, offset))
    objective = losses.CausalLM(task)
    objective.check((ids, mask), labels)
    loss = objective(task(input_ids=ids, attention_mask=mask), labels)
    torch.testing.assert_close(loss, expected.loss, rtol=0, atol=1e-6)
    own = task.program.get_parameter("prompt.value")
    torch.testing.assert_close(
        gradient(loss, own), gradient(expected.loss, prompt), rtol=1e-5, atol=1e-6
    )


def test_the_last_entry_of_a_prompt_predicts_the_first_token() -> None:
    task, (ids, mask) = prompted(captured(gpt2, "LMHeadModel")[1]), tokens()
    only_first = torch.full_like(ids, losses.IGNORED)
    only_first[:, 0] = ids[:, 0]
    logits = task(input_ids=ids, attention_mask=mask).logits
    expected = nn.functional.cross_entropy(logits[:, PROMPT - 1], ids[:, 0])
    objective = losses.CausalLM(task)
    torch.testing.assert_close(objective({"logits": logits}, only_first), expected)
    assert objective.score({"logits": logits}, only_first)[1] == BATCH


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_token_classification(offset: int) -> None:
    model, graph = captured(bert, "ForTokenClassification")
    task, (ids, mask) = prompted(graph, offset=offset), tokens()
    labels = (ids % 5).masked_fill(mask == 0, losses.IGNORED)
    expected, prompt = reference(model, task, ids, mask, offset, labels=padded(labels, offset))
    outputs = task(input_ids=ids, attention_mask=mask)
    objective = losses.TokenClassification(task)
    loss = objective(outputs, labels)
    torch.testing.assert_close(loss, expected.loss, rtol=0, atol=1e-6)
    own = task.program.get_parameter("prompt.value")
    torch.testing.assert_close(
        gradient(loss, own), gradient(expected.loss, prompt), rtol=1e-5, atol=1e-6
    )
    sliced = original(task, outputs).logits
    keep = [*range(offset), *range(offset + PROMPT, LENGTH + PROMPT)]
    assert sliced.equal(outputs.logits[:, keep])
    right = ((sliced.argmax(-1) == labels) & (labels >= 0)).sum()
    assert objective.score(outputs, labels) == (right, (labels >= 0).sum())


@pytest.mark.parametrize("offset", [0, 1])
def test_span(offset: int) -> None:
    model, graph = captured(bert, "ForQuestionAnswering")
    task, (ids, mask) = prompted(graph, offset=offset), tokens()
    plain, prompt = reference(model, task, ids, mask, offset)
    keep = [*range(offset), *range(offset + PROMPT, LENGTH + PROMPT)]
    starts, ends = torch.tensor([1, 2, LENGTH]), torch.tensor([3, 3, LENGTH])
    loss_of = model.loss_function
    expected = loss_of(plain.start_logits[:, keep], plain.end_logits[:, keep], starts, ends)
    objective = losses.Span(task)
    labels = torch.stack([starts, ends], 1)
    objective.check((ids, mask), labels)
    outputs = task(input_ids=ids, attention_mask=mask)
    loss = objective(outputs, labels)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)
    own = task.program.get_parameter("prompt.value")
    torch.testing.assert_close(
        gradient(loss, own), gradient(expected, prompt), rtol=1e-5, atol=1e-6
    )
    assert objective.score(outputs, labels)[1] == 2


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", [gpt2, llama])
def test_a_classifier_reads_its_last_token(family: Callable[[str], nn.Module], side: str) -> None:
    """The model picks the last token that is no padding by ids that know nothing of the prompt."""
    model, graph = captured(family, "ForSequenceClassification")
    task, (ids, mask) = prompted(graph), tokens(side)
    hidden, prompt = _hidden_reference(model, task, ids, mask)
    lengths = mask.sum(1) if side == "right" else torch.full((BATCH,), LENGTH)
    last = hidden[torch.arange(BATCH), PROMPT + lengths - 1]
    expected = model.score(last)
    found = task(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    labels = torch.tensor([0, 3, 4])
    loss, wanted = (nn.functional.cross_entropy(one, labels) for one in (found, expected))
    own = task.program.get_parameter("prompt.value")
    torch.testing.assert_close(gradient(loss, own), gradient(wanted, prompt), rtol=1e-5, atol=1e-5)


def _hidden_reference(
    model: Any, task: gp.ReprogrammedModel, ids: Tensor, mask: Tensor
) -> tuple[Tensor, nn.Parameter]:
    inner = model.transformer if hasattr(model, "transformer") else model.model
    outputs, prompt = reference(inner, task, ids, mask, 0)
    return outputs.last_hidden_state, prompt


def test_several_insertions_are_taken_out_in_the_opposite_order() -> None:
    more = gp.Concatenative(at="hidden[0]", length=2, offset=1, name="more")
    last = gp.Concatenative(at="hidden[0]", length=3, offset=-1, name="last")
    task, (ids, mask) = prompted(captured(bert, "ForTokenClassification")[1], more, last), tokens()
    found = inserted(task)
    assert [(one.part, one.axis, one.offset, one.length) for one in found] == [
        ("prompt", 1, 0, PROMPT),
        ("more", 1, 1, 2),
        ("last", 1, -1, 3),
    ]
    labels = torch.arange(1, LENGTH + 1).expand(BATCH, -1)
    longer = labels
    for one in found:
        longer = one.fill(longer, 0)
    assert longer[0].tolist() == [0, 0, 0, 0, 0, 0, *range(1, LENGTH + 1), 0, 0, 0]
    shorter = longer
    for one in reversed(found):
        shorter = one.remove(shorter)
    assert shorter.equal(labels)
    assert task(input_ids=ids, attention_mask=mask).logits.shape[1] == longer.shape[1]


def test_entries_that_end_before_the_output_need_no_slicing() -> None:
    task, (ids, mask) = (
        prompted(captured(bert, "ForTokenClassification")[1], until="logits"),
        tokens(),
    )
    outputs = task(input_ids=ids, attention_mask=mask)
    assert inserted(task) == ()
    assert original(task, outputs).logits.shape == (BATCH, LENGTH, 5)


class Cut(nn.Module):
    """A head that drops the first token, as of models with a class token in front."""

    def __init__(self, start: int, flipped: bool = False) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(10, 4), nn.Linear(4, 3)
        self.start, self.flipped = start, flipped

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        return self.head(x.flip(1) if self.flipped else x[:, self.start :])


@pytest.mark.parametrize(("model", "operation"), [(Cut(1), "slice"), (Cut(0, True), "flip")])
def test_an_axis_that_is_cut_or_turned_is_refused(model: Cut, operation: str) -> None:
    ids = torch.randint(10, (2, 6))
    graph = gp.capture(model.eval(), (ids,), dynamic_axes={"ids": {0: "batch", 1: "sequence"}})
    task = gp.compile(graph, gp.Program([gp.Concatenative(at="tokens", length=2)]))
    with pytest.raises(ProgramError, match=f"moves entries along the axis: {operation}"):
        inserted(task, graph.outputs[0])


def test_an_output_that_is_not_there_is_named() -> None:
    task = prompted(captured(bert, "ForTokenClassification")[1])
    with pytest.raises(ProgramError, match="no output 'start'; it returns logits"):
        losses.TokenClassification(task, "start")
    with pytest.raises(ProgramError, match="floats with 2 axes"):
        losses.Span(task, ("logits", "logits"))


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (torch.zeros(BATCH, LENGTH + PROMPT, dtype=torch.int64), "one per token"),
        (torch.zeros(BATCH, LENGTH), "one per token"),
        (torch.full((BATCH, LENGTH), 5), r"labels lie in \[5, 5\], but the output has 5 classes"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Tensor, text: str) -> None:
    task = prompted(captured(bert, "ForTokenClassification")[1])
    with pytest.raises(DataError, match=text):
        losses.TokenClassification(task).check(tokens(), labels)


def test_fit_and_evaluate_take_labels_by_token() -> None:
    task, (ids, mask) = prompted(captured(bert, "ForTokenClassification")[1]), tokens()
    labels = torch.full_like(ids, 3).masked_fill(mask == 0, losses.IGNORED)
    data = ((ids, mask), labels)
    objective = losses.TokenClassification(task)
    before = gp.evaluate(task, data, loss=objective)
    assert before.count == int(mask.sum())
    history = gp.fit(task, data, data, epochs=20, lr=0.1, loss=objective, progress=False)
    after = gp.evaluate(task, data, loss=objective)
    assert after.loss < before.loss
    assert after.accuracy == history.best.validation_accuracy
    assert str(after).endswith(f"labels {before.count}")
    with pytest.raises(gp.errors.TrainingError, match=r"gp\.losses"):
        gp.fit(task, data, epochs=1)


@pytest.mark.parametrize("offset", [0, 2])
def test_training_computes_logits_where_labels_count(offset: int) -> None:
    task, (ids, mask) = prompted(captured(gpt2, "LMHeadModel")[1], offset=offset), tokens()
    labels = torch.full_like(ids, losses.IGNORED)
    for row, places in enumerate(([0, 3], [5], [2, 3])):
        labels[row, places] = ids[row, places]
    objective = losses.CausalLM(task)
    own = task.program.get_parameter("prompt.value")
    whole = objective(task(input_ids=ids, attention_mask=mask), labels)
    places = objective.places(labels)
    outputs = task.at(places.output, places.positions, ids, mask)
    assert outputs.logits.shape == (BATCH, 2, VOCABULARY)
    loss = places.objective(outputs, labels)
    torch.testing.assert_close(loss, whole, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient(loss, own), gradient(whole, own), rtol=1e-5, atol=1e-6)
    assert places.objective.score(outputs, labels)[1] == 5 - (
        offset == 2
    )  # nothing predicts the first token
    plain = losses.CausalLM(gp.compile(task.base, gp.Program([])))
    assert plain.places(ids) is None  # all positions but the last count
    assert objective.places(torch.full_like(ids, losses.IGNORED)) is None


def test_fit_learns_the_same_from_a_few_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, (ids, mask) = captured(gpt2, "LMHeadModel")[1], tokens()
    labels = torch.full_like(ids, losses.IGNORED)
    labels[:, 2:4] = ids[:, 2:4]
    found = []
    for few in (True, False):
        task = prompted(graph)
        if not few:
            monkeypatch.setattr(losses.CausalLM, "places", lambda self, labels: None)
        objective = losses.CausalLM(task)
        history = gp.fit(task, ((ids, mask), labels), epochs=3, loss=objective, progress=False)
        found.append([record.train_loss for record in history.records])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
