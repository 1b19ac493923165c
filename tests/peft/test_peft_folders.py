"""Checkpoint folders of PEFT: what is read of them, what is refused, and where they come from."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import FileError, GraphprogError, ProgramError
from tests.support.servers.hub_server import HubServer

WIDTH, LENGTH = 16, 3


class Classifier(nn.Module):
    """Names its modules as models do that PEFT knows."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 24)
        self.down = nn.Linear(24, WIDTH)
        self.score = nn.Linear(WIDTH, 4, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.norm(self.table(input_ids))
        return self.score((x + self.down(self.up(x).relu())).mean(1))


@functools.cache
def captured() -> tuple[nn.Module, gp.Graph]:
    torch.manual_seed(0)
    model = Classifier().eval().requires_grad_(False)
    ids = torch.randint(0, 30, (2, 5))
    return model, gp.capture(model, (ids,), dynamic_axes={"input_ids": {0: "batch", 1: "length"}})


IDS = torch.randint(0, 30, (3, 7), generator=torch.Generator().manual_seed(0))
PROMPT = {"peft_type": "PROMPT_TUNING", "task_type": "SEQ_CLS", "num_virtual_tokens": LENGTH}
PREFIX = PROMPT | {"peft_type": "PREFIX_TUNING", "num_layers": 2}
HEAD = torch.ones(4, WIDTH)
ENTRIES = torch.randn(LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))


def folder(path: Path, config: Any, tensors: dict[str, Tensor] | None) -> Path:
    text = config if isinstance(config, str) else json.dumps(config)
    path.mkdir(exist_ok=True)
    (path / "adapter_config.json").write_text(text, "utf-8")
    if tensors is not None:
        safetensors.torch.save_file(tensors, path / "adapter_model.safetensors")
    return path


def test_a_prompt_and_a_head(tmp_path: Path) -> None:
    model, graph = captured()
    head = torch.randn(4, WIDTH)
    tensors = {"prompt_embeddings": ENTRIES, "base_model.score.weight": head}
    task = gp.peft.load(folder(tmp_path, PROMPT, tensors), graph)
    assert str(task.spec) == (
        'program{manipulations=[concatenative{at="table:out" name="prompt" length=3 '
        'value=learnable} trainable-layer{at="score:out" name="score" bias=false}]}'
    )
    x = model.norm(torch.cat([ENTRIES.expand(3, -1, -1), model.table(IDS)], 1))
    x = (x + model.down(model.up(x).relu())).mean(1) @ head.T
    assert torch.allclose(task(IDS), x, atol=1e-6)


def test_a_pattern_and_a_name_of_one_folder_take_no_years(tmp_path: Path) -> None:
    """With Python's engine, 40 letters take hours here."""
    _, graph = captured()
    config = {"peft_type": "IA3", "feedforward_modules": "(a+)+b"}
    tensors = {f"base_model.model.{'a' * 4_000}.ia3_l": torch.ones(1, 24)}
    with pytest.raises(FileError, match=r"is not that of a linear layer|no interface"):
        gp.peft.load(folder(tmp_path, config, tensors), graph)
    config["feedforward_modules"] = r".*\.(fc|down)|(?:mlp\.)?down$"
    tensors = {"base_model.model.down.ia3_l": torch.ones(1, 24)}
    assert "scale" in str(gp.peft.load(folder(tmp_path, config, tensors), graph).spec)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_pipes_are_not_waited_for_and_huge_files_not_read(name: str, tmp_path: Path) -> None:
    _, graph = captured()
    path = folder(tmp_path, PROMPT, {"prompt_embeddings": ENTRIES}) / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileError, match=r"not a regular file|there is no adapter_model"):
        gp.peft.load(tmp_path, graph)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: occupies nothing
    with pytest.raises(FileError, match="larger than"):
        gp.peft.load(tmp_path, graph)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    _, graph = captured()
    damaged = {"prompt_embeddings": ENTRIES.clone()}
    damaged["prompt_embeddings"][1, 2] = float("nan")
    said = r"adapter_model.safetensors: tensor 'prompt_embeddings' has 1 numbers .* at \[1, 2\]"
    with pytest.raises(FileError, match=said):
        gp.peft.load(folder(tmp_path, PROMPT, damaged), graph)


def test_scalings_of_what_goes_in_and_what_comes_out(tmp_path: Path) -> None:
    model, graph = captured()
    up, down = torch.rand(24, 1), torch.rand(1, 24)
    config = {"peft_type": "IA3", "target_modules": ["up", "down"], "feedforward_modules": ["down"]}
    tensors = {"base_model.model.up.ia3_l": up, "base_model.model.down.ia3_l": down}
    task = gp.peft.load(folder(tmp_path, config, tensors), graph)
    x = model.norm(model.table(IDS))
    hidden = (model.up(x) * up.flatten()).relu() * down.flatten()
    assert torch.allclose(task(IDS), model.score((x + model.down(hidden)).mean(1)), atol=1e-6)
    gp.peft.save(task, tmp_path / "again", base_model_name_or_path="b", task_type="CAUSAL_LM")
    again = json.loads((tmp_path / "again" / "adapter_config.json").read_text("utf-8"))
    assert again["target_modules"] == ["down", "up"]
    assert again["feedforward_modules"] == ["down"]
    written = safetensors.torch.load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[name], tensors[name]) for name in tensors)


def test_the_second_half_of_a_prompt_that_peft_never_reads_is_left_out(tmp_path: Path) -> None:
    both = torch.cat([ENTRIES, torch.full_like(ENTRIES, 7.0)])
    task = gp.peft.load(folder(tmp_path, PROMPT, {"prompt_embeddings": both}), captured()[1])
    assert torch.equal(task.program_state()["program.prompt.value"], ENTRIES)


def test_each_task_of_many_has_its_own_factors(tmp_path: Path) -> None:
    tensors = {
        "prompt_embeddings": ENTRIES,
        "prefix_task_cols": torch.randn(2, LENGTH, 2),
        "prefix_task_rows": torch.randn(2, 2, WIDTH),
    }
    config = {**PROMPT, "peft_type": "MULTITASK_PROMPT_TUNING", "num_tasks": 2, "num_ranks": 2}
    path = folder(tmp_path, config, tensors)
    for number in (0, 1):
        task = gp.peft.load(path, captured()[1], task=number)
        factors = tensors["prefix_task_cols"][number] @ tensors["prefix_task_rows"][number]
        plain = {"prompt_embeddings": ENTRIES * factors}
        other = gp.peft.load(folder(tmp_path / str(number), PROMPT, plain), captured()[1])
        assert torch.allclose(task(IDS), other(IDS), atol=1e-6)
    with pytest.raises(FileError, match="there is no task 2; it has 2"):
        gp.peft.load(path, captured()[1], task=2)


class Wrapped(nn.Module):
    """A model in another module, which may call one of its layers twice."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.again = again
        self.model = captured()[0]

    def forward(self, input_ids: Tensor) -> Tensor:
        logits = self.model(input_ids)
        return logits + self.model.score(logits.repeat(1, 4)) if self.again else logits


def test_a_model_inside_of_another_one(tmp_path: Path) -> None:
    path = folder(tmp_path, PROMPT, {"prompt_embeddings": ENTRIES, "base_model.score.weight": HEAD})
    axes = {"input_ids": {0: "batch", 1: "length"}}
    graph = gp.capture(Wrapped(again=False), (IDS,), dynamic_axes=axes)
    alone = gp.peft.load(path, captured()[1])
    assert torch.equal(gp.peft.load(path, graph)(IDS), alone(IDS))
    graph = gp.capture(Wrapped(again=True), (IDS,), dynamic_axes=axes)
    with pytest.raises(FileError, match=r"calls 'model\.score' several times"):
        gp.peft.load(path, graph)


def test_from_the_hub(hub: HubServer, tmp_path: Path) -> None:
    path = folder(tmp_path / "local", PROMPT, {"prompt_embeddings": ENTRIES})
    hub.repositories["me/prompt"] = {file.name: file.read_bytes() for file in path.iterdir()}
    task = gp.peft.load("me/prompt", captured()[1])
    assert torch.equal(task.program_state()["program.prompt.value"], ENTRIES)
    with pytest.raises(FileError, match=r"adapter_config\.json cannot be pulled"):
        gp.peft.load("me/nothing", captured()[1])


@pytest.mark.parametrize(
    ("config", "tensors", "said"),
    [
        (PREFIX, {}, "no 'prompt_embeddings'"),
        (PREFIX, {"prompt_embeddings": torch.zeros(2, 5)}, "which is not that of"),
        ({"peft_type": "LORA"}, {}, "supported are PROMPT_TUNING"),
        ({}, {}, "checkpoints of None"),
        ("[]", {}, "must be a JSON object"),
        ("{", {}, "not valid JSON"),
        (PROMPT, None, "safe_serialization"),
        (PROMPT, {}, "no 'prompt_embeddings'"),
        ({**PROMPT, "num_virtual_tokens": "3"}, {"prompt_embeddings": ENTRIES}, "be an integer"),
        ({**PROMPT, "num_virtual_tokens": 2}, {"prompt_embeddings": ENTRIES}, "of 2 virtual"),
        (PROMPT, {"prompt_embeddings": ENTRIES[:, :8].clone()}, r"expected .*\[3, 16\]"),
        (
            PROMPT,
            {"prompt_embeddings": ENTRIES, "base_model.score.weight": torch.ones(5, WIDTH)},
            "same number of labels|trained with a weight",
        ),
        (
            PROMPT,
            {"prompt_embeddings": ENTRIES, "base_model.norm.weight": torch.ones(WIDTH)},
            "norm was trained but is not an affine layer",
        ),
        (
            PROMPT,
            {"prompt_embeddings": ENTRIES, "base_model.classifier.weight": torch.ones(4, WIDTH)},
            "no interface 'classifier:out'",
        ),
        (
            {"peft_type": "IA3", "feedforward_modules": []},
            {"base_model.model.up.ia3_l": torch.ones(1, WIDTH)},
            "not that of a linear layer",
        ),
        (
            {"peft_type": "IA3", "feedforward_modules": "("},
            {"base_model.model.up.ia3_l": torch.ones(1, WIDTH)},
            "feedforward_modules",
        ),
    ],
)
def test_what_is_refused(config: Any, tensors: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=said):
        gp.peft.load(folder(tmp_path, config, tensors), captured()[1])


def test_damaged_and_missing_folders(tmp_path: Path) -> None:
    path = folder(tmp_path, PROMPT, {"prompt_embeddings": ENTRIES})
    data = (path / "adapter_model.safetensors").read_bytes()
    (path / "adapter_model.safetensors").write_bytes(data[:-5])
    with pytest.raises(FileError, match="is corrupt"):
        gp.peft.load(path, captured()[1])
    with pytest.raises(FileError, match="cannot be read"):
        gp.peft.load(tmp_path / "missing", captured()[1])


def saved(parts: list[gp.Manipulation], tmp_path: Path, align: Any = None, **options: Any) -> Path:
    given = {} if align is None else {"align": align}
    task = gp.compile(captured()[1], gp.Program(parts, **given))
    wanted = {"base_model_name_or_path": "b", "task_type": "SEQ_CLS", **options}
    gp.peft.save(task, tmp_path / "mine", **wanted)
    return tmp_path / "mine"


def test_heads_that_peft_expects_are_written_though_nothing_changed_them(tmp_path: Path) -> None:
    path = saved([gp.Concatenative(at="tokens", length=2)], tmp_path)
    tensors = safetensors.torch.load_file(path / "adapter_model.safetensors")
    assert torch.equal(tensors["base_model.score.weight"], captured()[0].score.weight)
    config = json.loads((path / "adapter_config.json").read_text("utf-8"))
    assert config["modules_to_save"] == ["classifier", "score"]
    path = saved([gp.Concatenative(at="tokens", length=2)], tmp_path, task_type="CAUSAL_LM")
    assert list(safetensors.torch.load_file(path / "adapter_model.safetensors")) == [
        "prompt_embeddings"
    ]


def test_fixed_entries_and_computed_ones_are_written_as_what_they_are(tmp_path: Path) -> None:
    parts: list[gp.Manipulation] = [
        gp.Concatenative(at="tokens", length=3, value=gp.Fixed(ENTRIES))
    ]
    path = saved(parts, tmp_path)
    loaded = gp.peft.load(path, captured()[1])
    assert torch.equal(loaded.program_state()["program.prompt.value"], ENTRIES)
    value = gp.reparameterized.Subspace(size=4)
    path = saved([gp.Concatenative(at="tokens", length=3, value=value)], tmp_path)
    assert safetensors.torch.load_file(path / "adapter_model.safetensors")[
        "prompt_embeddings"
    ].shape == (3, WIDTH)


@pytest.mark.parametrize(
    ("parts", "options", "said"),
    [
        ([gp.Additive(at="tokens")], {}, "cannot represent 'additive'"),
        ([gp.Concatenative(at="norm:out")], {}, "before the tokens"),
        ([gp.Concatenative(at="tokens", offset=-1)], {}, "offset -1"),
        (
            [gp.Concatenative(at="tokens"), gp.Scale(at="up:out")],
            {},
            "one prompt or prefix, or scalings",
        ),
        ([gp.TrainableLayer(at="score:out", bias=False)], {}, "has neither"),
        ([gp.Scale(at="up:out"), gp.Scale(at="up:in", name="b")], {}, "once"),
        ([gp.Concatenative(at="tokens")], {"task_type": "NONE"}, "must be one of CAUSAL_LM"),
        ([gp.Concatenative(at="tokens")], {"kind": "IA3"}, "this program is PROMPT_TUNING"),
        ([gp.Concatenative(at="tokens")], {"align": gp.LinearHead(classes=2)}, "TrainableLayer"),
    ],
)
def test_what_peft_has_no_place_for(
    parts: list[gp.Manipulation], options: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ProgramError, match=said):
        saved(parts, tmp_path, **options)
    assert not (tmp_path / "mine").exists()


def test_a_layer_is_named_by_its_result() -> None:
    with pytest.raises(GraphprogError, match="layer"):
        gp.TrainableLayer(at="hidden[0]")
