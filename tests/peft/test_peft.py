"""Checkpoints of PEFT: what PEFT trains computes the same here, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import FileError, ProgramError
from graphprog.peft import folder
from tests.models.peft_models import Base, base, outputs

peft = pytest.importorskip("peft")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.xdist_group("peft")]

ENTRIES = 5
METHODS = ("prompt", "mlp", "lstm", "multitask", "prefix", "projected", "ia3")
MAIN = [("gpt2", "CAUSAL_LM"), ("llama", "CAUSAL_LM"), ("bert", "SEQ_CLS"), ("t5", "SEQ_2_SEQ_LM")]
OTHERS = [
    ("gemma", "CAUSAL_LM"),
    ("gpt2", "SEQ_CLS"),
    ("bert", "TOKEN_CLS"),
    ("bert", "QUESTION_ANS"),
    ("llama", "SEQ_CLS"),
    ("gpt2", "TOKEN_CLS"),
    ("bert", "FEATURE_EXTRACTION"),
    ("roberta", "SEQ_CLS"),
]
_BERT = ("encoder.layer.*.attention.self.key:out", "encoder.layer.*.output.dense:in")
_LLAMA = ("model.layers.*.self_attn.v_proj:out", "model.layers.*.mlp.down_proj:in")
SCALED = {
    "bert": tuple(f"bert.{end}" for end in _BERT),
    "roberta": tuple(f"roberta.{end}" for end in _BERT),
    "llama": _LLAMA,
    "gemma": _LLAMA,
    "gpt2": ("transformer.h.*.attn.c_attn:out", "transformer.h.*.mlp.c_proj:in"),
    "t5": (
        "encoder.block.*.layer.0.SelfAttention.k:out",
        "decoder.block.*.layer.2.DenseReluDense.wo:in",
    ),
}
"""Where a program of one's own scales, by family."""

CASES = [(*place, method) for place in MAIN for method in METHODS]
CASES += [(*place, method) for place in OTHERS for method in ("prompt", "prefix", "ia3")]
QUICK = {(*p, method) for p in MAIN for method in ("prompt", "multitask", "prefix", "ia3")}
QUICK |= {("gpt2", "CAUSAL_LM", method) for method in METHODS}
QUICK -= {("t5", "SEQ_2_SEQ_LM", method) for method in ("multitask", "ia3")}


def cases(quick: set[tuple[str, str, str]]) -> list[Any]:
    """All cases, of which most are for the slow tests."""
    slow = pytest.mark.slow
    return [pytest.param(*case, marks=() if case in quick else slow) for case in CASES]


def configuration(method: str, task: str) -> Any:
    common: dict[str, Any] = {"task_type": task, "num_virtual_tokens": ENTRIES}
    if method == "prompt":
        return peft.PromptTuningConfig(**common)
    if method == "mlp":
        return peft.PromptEncoderConfig(encoder_hidden_size=12, **common)
    if method == "lstm":
        kind = {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 12}
        return peft.PromptEncoderConfig(**kind, **common)
    if method == "multitask":
        return peft.MultitaskPromptTuningConfig(num_tasks=3, num_ranks=2, **common)
    if method in ("prefix", "projected"):
        kind = {"prefix_projection": method == "projected", "encoder_hidden_size": 12}
        return peft.PrefixTuningConfig(**kind, **common)
    return peft.IA3Config(task_type=task)


def trained(source: Base, method: str) -> nn.Module:
    """A model wrapped by PEFT, with everything that it trains changed."""
    torch.manual_seed(1)
    model = peft.get_peft_model(source.copy(), configuration(method, source.task)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) * 0.3
    return model


def seen_by_peft(source: Base, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """PEFT drops token types for some tasks, which then count as 0."""
    if source.task in ("QUESTION_ANS", "FEATURE_EXTRACTION"):
        inputs = {**inputs, "token_type_ids": torch.zeros_like(inputs["token_type_ids"])}
    return inputs


def of_peft(model: nn.Module, inputs: dict[str, Tensor], task: int | None = None) -> list[Tensor]:
    """What PEFT computes; multitask prompts know their task, and take labels for a decoder."""
    given: dict[str, Tensor] = dict(inputs)
    if task is not None:
        given["task_ids"] = torch.full((len(inputs["input_ids"]),), task)
    labeled = task is not None and "decoder_input_ids" in inputs
    if labeled:
        later = given.pop("decoder_input_ids")[:, 1:]
        given["labels"] = torch.cat([later, torch.ones_like(later[:, :1])], 1)
    with torch.no_grad():
        found = outputs(model(**given))
    return found[1:] if labeled else found


def of_task(task: gp.ReprogrammedModel, source: Base, inputs: dict[str, Tensor]) -> list[Tensor]:
    constants: dict[str, Any] = {}
    if "use_cache" in str(source.graph.call_spec.tree):
        constants["use_cache"] = False
    with torch.no_grad():
        return outputs(task(**inputs, **constants))


def distance(found: list[Tensor], wanted: list[Tensor]) -> float:
    assert len(found) == len(wanted) > 0
    assert all(one.shape == other.shape for one, other in zip(found, wanted, strict=True))
    pairs = zip(found, wanted, strict=True)
    return max(float((one - other).abs().max()) for one, other in pairs)


def paddings(source: Base) -> tuple[str, ...]:
    """Where padding may stand so that PEFT, which hides the ids, reads the model's own places."""
    if source.family in ("gpt2", "llama") and source.task == "SEQ_CLS":
        return ("none", "left")  # the last position
    return ("none", "right") if source.family == "roberta" else ("none", "left", "right")


@pytest.mark.parametrize(
    ("family", "task", "method"), cases(QUICK | {(*place, "prompt") for place in OTHERS[:4]})
)
def test_outputs_are_those_of_peft(family: str, task: str, method: str, tmp_path: Path) -> None:
    source = base(family, task)
    model = trained(source, method)
    model.save_pretrained(tmp_path / "theirs")
    number = 2 if method == "multitask" else None
    loaded = gp.peft.load(tmp_path / "theirs", source.graph, task=number or 0)
    for padding, (batch, length) in zip(paddings(source), ((2, 9), (4, 6), (1, 12)), strict=False):
        inputs = seen_by_peft(source, source.call(batch, length, padding))
        wanted = of_peft(model, inputs, number)
        assert distance(of_task(loaded, source, inputs), wanted) < 1e-5
    plain = of_task(gp.compile(source.graph, gp.Program()), source, inputs)
    if plain[0].shape == wanted[0].shape:
        assert distance(plain[:1], wanted[:1]) > 1e-3  # the comparison can fail


@pytest.mark.parametrize(("family", "task", "method"), cases(QUICK))
def test_peft_reads_what_is_written(family: str, task: str, method: str, tmp_path: Path) -> None:
    if (family, method) == ("t5", "multitask"):
        pytest.skip("PEFT prompts the decoder too, in a second half of the same tensor")
    if (family, method) == ("t5", "prefix"):
        pytest.skip("PEFT gives both layers the same; see the next test")
    source = base(family, task)
    mine = program(source, method)
    options = {"base_model_name_or_path": "some/base", "task_type": task}
    if method in ("mlp", "lstm"):
        options["kind"] = "P_TUNING"
    gp.peft.save(mine, tmp_path / "mine", **options)
    model = peft.PeftModel.from_pretrained(source.copy(), tmp_path / "mine").eval()
    number = 0 if method == "multitask" else None
    for padding, (batch, length) in zip(paddings(source), ((3, 8), (2, 11)), strict=False):
        inputs = seen_by_peft(source, source.call(batch, length, padding))
        wanted = of_peft(model, inputs, number)
        assert distance(of_task(mine, source, inputs), wanted) < 1e-5
    again = gp.peft.load(tmp_path / "mine", source.graph)
    assert distance(of_task(again, source, inputs), of_task(mine, source, inputs)) < 1e-6


def program(source: Base, method: str) -> gp.ReprogrammedModel:
    """A program of one's own of each method, away from where it starts."""
    values = {
        "mlp": gp.reparameterized.MLP(hidden=6, layers=3, activation="relu"),
        "lstm": gp.reparameterized.LSTM(hidden=6),
        "multitask": gp.reparameterized.LowRank(rank=2),
    }
    parts: list[gp.Manipulation]
    if method == "ia3":
        places = SCALED[source.family]
        if source.task == "FEATURE_EXTRACTION":  # the model without a head around it
            places = tuple(place.removeprefix("bert.") for place in places)
        parts = [gp.Scale(at=at, name=f"scale{number}") for number, at in enumerate(places)]
    elif method in ("prefix", "projected"):
        at = "decoder.attention[*]" if source.family == "t5" else "attention[*]"
        value = gp.reparameterized.MLP(8, inputs=6) if method == "projected" else gp.Learnable()
        parts = [gp.Prefix(at=at, length=ENTRIES, value=value)]
    else:
        at = "input_ids.tokens" if source.family == "t5" else "tokens"
        at = "model.embed_tokens:out" if source.family == "gemma" else at
        value = values.get(method, gp.Learnable("vocabulary"))
        parts = [gp.Concatenative(at=at, length=ENTRIES, value=value)]
    if source.task == "SEQ_CLS" and source.family in ("bert", "llama"):
        head = {"bert": "classifier:out", "llama": "score:out"}[source.family]
        parts.append(gp.TrainableLayer(at=head, bias=source.family == "bert"))
    task = gp.compile(source.graph, gp.Program(parts))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in task.program.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.3
    return task


def test_layers_of_a_decoder_share_a_prefix_in_peft(tmp_path: Path) -> None:
    source = base("t5", "SEQ_2_SEQ_LM")
    options = {"base_model_name_or_path": "some/base", "task_type": source.task}
    with pytest.raises(ProgramError, match="layers 0 and 1 of a decoder"):
        gp.peft.save(program(source, "prefix"), tmp_path / "mine", **options)
    model = trained(source, "prefix")
    model.save_pretrained(tmp_path / "theirs")
    loaded = gp.peft.load(tmp_path / "theirs", source.graph)
    gp.peft.save(loaded, tmp_path / "mine", **options)
    again = peft.PeftModel.from_pretrained(source.copy(), tmp_path / "mine").eval()
    inputs = source.call(3, 8)
    assert distance(of_peft(again, inputs), of_peft(model, inputs)) == 0


def test_a_prefix_reaches_the_encoder_where_asked(tmp_path: Path) -> None:
    source = base("t5", "SEQ_2_SEQ_LM")
    trained(source, "prefix").save_pretrained(tmp_path)
    loaded = gp.peft.load(tmp_path, source.graph, at="encoder.attention[*]")
    inputs = source.call(3, 8)
    changed = of_task(loaded, source, inputs)
    plain = of_task(gp.compile(source.graph, gp.Program()), source, inputs)
    assert distance(changed, plain) > 1e-3
    assert loaded.graph.insertions[0].at.startswith("encoder.")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_decoder_that_classifies_reads_the_last_real_token(family: str, tmp_path: Path) -> None:
    source = base(family, "SEQ_CLS")
    model = trained(source, "prompt")
    model.save_pretrained(tmp_path)
    loaded = gp.peft.load(tmp_path, source.graph)
    inputs = source.call(4, 8, "right")
    lengths = inputs["attention_mask"].sum(1).tolist()
    alone = [
        of_peft(model, {name: value[row : row + 1, :length] for name, value in inputs.items()})[0]
        for row, length in enumerate(lengths)
    ]
    (found,) = of_task(loaded, source, inputs)
    assert distance([found], [torch.cat(alone)]) < 1e-5
    assert distance(of_peft(model, inputs), [found]) > 1e-2  # it reads the padding


@pytest.mark.parametrize(
    ("family", "task"),
    [pytest.param(*pair, marks=() if pair[0] == "bert" else pytest.mark.slow) for pair in MAIN],
)
def test_a_prompt_of_peft_becomes_an_onnx_file(family: str, task: str, tmp_path: Path) -> None:
    source = base(family, task)
    model = trained(source, "prompt")
    model.save_pretrained(tmp_path)
    loaded = gp.peft.load(tmp_path, source.graph)
    example = tuple(source.call(2, 7).values())
    assert gp.backends.onnx.export(loaded, tmp_path / "prompt.onnx", inputs=example).passed
    session = gp.backends.onnxruntime.Session(tmp_path / "prompt.onnx", providers="cpu")
    for batch, length in ((1, 5), (5, 13)):
        inputs = source.call(batch, length, "left")
        wanted = of_peft(model, inputs)[0].numpy()
        found = np.asarray(session.evaluate(tuple(inputs.values()))[0])
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < 1e-5


def test_what_is_loaded_trains_on_and_is_saved_as_a_program(tmp_path: Path) -> None:
    source = base("bert", "SEQ_CLS")
    trained(source, "prompt").save_pretrained(tmp_path)
    loaded = gp.peft.load(tmp_path, source.graph)
    assert {name for name, _ in loaded.program.named_children()} == {"prompt", "classifier"}
    before, inputs = loaded.source_hash(), source.call(4, 6)
    loss = nn.functional.cross_entropy(loaded(**inputs).logits, torch.tensor([0, 1, 2, 0]))
    loss.backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in loaded.program.parameters())  # type: ignore[union-attr]
    assert loaded.source_hash() == before
    gp.save(loaded, tmp_path / "program.safetensors")
    again = gp.load(tmp_path / "program.safetensors", source.graph)
    assert distance(of_task(again, source, inputs), of_task(loaded, source, inputs)) == 0


@pytest.mark.parametrize("layers", [1, 3])
def test_a_prefix_for_another_number_of_layers_is_refused(layers: int, tmp_path: Path) -> None:
    config = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": ENTRIES, "num_layers": layers}
    rows = {"prompt_embeddings": torch.randn(ENTRIES, layers * 2 * 32)}
    folder.write(tmp_path, config, rows)
    with pytest.raises(FileError, match=rf"for {layers} layers, but the graph has 2 attention"):
        gp.peft.load(tmp_path, base("gpt2", "CAUSAL_LM").graph)


def test_another_number_of_labels_is_refused(tmp_path: Path) -> None:
    trained(base("gpt2", "SEQ_CLS"), "prompt").save_pretrained(tmp_path)  # 2 labels
    with pytest.raises(FileError, match="no interface 'score:out'"):
        gp.peft.load(tmp_path, base("bert", "SEQ_CLS").graph)  # 3 labels
