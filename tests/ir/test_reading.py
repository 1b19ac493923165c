"""What graphs print for people: tables, folded texts, differences, summaries."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import InterfaceError
from graphprog.ir.reading.folding import Row, Run, folded, range_label, ranged, starred
from graphprog.ir.records import Step, Steps
from graphprog.passes import EraseProgram, Pipeline
from graphprog.passes.insert.insert import Insert
from tests.models.zoo import captured, cases

DEPTH = 12


class Block(nn.Module):
    """A residual block with modules that do nothing."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 16)
        self.act = act
        self.drop = nn.Dropout(0.1)
        self.down = nn.Linear(16, 8)
        self.scale = nn.Identity()

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return other + self.scale(self.down(self.drop(self.act(self.up(self.norm(x))))))


class Deep(nn.Module):
    """Twelve blocks.

    Args:
        odd: a block with another activation.
        crossed: a block that adds to what enters the network, not to what enters the block.
    """

    def __init__(self, odd: int | None = None, crossed: int | None = None) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8)
        acts = [nn.ReLU() if number == odd else nn.GELU() for number in range(DEPTH)]
        self.blocks = nn.ModuleList(Block(act) for act in acts)
        self.head = nn.Linear(8, 3)
        self.crossed = crossed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = first = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = block(x, first if number == self.crossed else x)
        return self.head(x)


@cache
def deep(odd: int | None = None, crossed: int | None = None) -> gp.Graph:
    torch.manual_seed(0)
    return gp.capture(Deep(odd, crossed).eval(), (torch.randn(2, 4),))


def runs(text: str) -> list[str]:
    """The labels of what is folded in a text."""
    return [line.split(":")[0].strip() for line in text.splitlines() if "×" in line]


def test_interfaces_of_equal_blocks_print_once() -> None:
    graph = deep()
    table = graph.interfaces()
    lines = str(table).splitlines()
    assert len(table) == 186
    assert len(lines) < 40
    assert runs(str(table)) == ["blocks.0–11 ×12"]
    assert any(line.split()[:2] == ["blocks.*.up:out", "hidden"] for line in lines)
    assert not any("drop" in line or "scale" in line for line in lines), "they compute nothing"
    assert lines[-2] == f"186 interfaces, {2 * 2 * DEPTH} of them at modules without an operation"
    assert lines[-1] == 'graph.interfaces("blocks.0.*") shows one block, verbose=True shows all'


def test_aliases_come_first_as_ranges_that_name_their_places() -> None:
    table = deep().interfaces()
    lines = str(table).splitlines()
    assert lines[0].split() == ["alias", "interface", "value"]
    found = {line.split()[0]: line.split()[1] for line in lines[2 : lines.index("")]}
    assert found["hidden[0:12]"] == "blocks.0–11:out"
    assert found["features"] == "head:in"
    assert len(table.resolve_all("hidden[0:12]")) == DEPTH


def test_every_interface_prints_when_asked() -> None:
    table = deep().interfaces(verbose=True)
    text = str(table)
    assert dict(table) == dict(deep().interfaces())
    assert repr(table) == text
    body = text.partition("\n\n")[2].splitlines()
    assert [line.split()[0] for line in body[2:]] == list(table), "one line each, and nothing else"


def test_interfaces_are_chosen_by_a_pattern() -> None:
    graph = deep()
    some = graph.interfaces("blocks.1.*")
    assert list(some) == [key for key in graph.interfaces() if key.startswith("blocks.1.")]
    assert len(graph.interfaces("hidden[*]")) == DEPTH
    assert list(graph.interfaces("hidden[3]")) == ["blocks.3:out"]
    assert len(graph.interfaces("hidden[2:5]")) == 3
    with pytest.raises(InterfaceError, match=r"(?s)'blocs.3.*'.*nearest names"):
        graph.interfaces("blocs.3.*")
    both = captured("two-towers")[1].interfaces("text.*")
    assert all(key.startswith(("text.", "text:")) for key in both)
    assert "ambiguous: hidden[*] may be vision.hidden[*], text.hidden[*]" in str(both)


def test_unequal_blocks_do_not_fold() -> None:
    labels = ["blocks.0–4 ×5", "blocks.6–11 ×6"]
    graph = deep(odd=5)
    assert runs(str(graph.interfaces())) == labels
    assert runs(str(graph)) == labels
    assert "relu(" in str(graph), "the odd one is printed"


def test_equal_blocks_that_read_other_values_do_not_fold() -> None:
    assert runs(str(deep(crossed=5))) == ["blocks.0–4 ×5", "blocks.6–11 ×6"]


def test_a_graph_prints_a_block_once_with_the_values_between_blocks() -> None:
    graph = deep()
    lines = str(graph).splitlines()
    assert len(lines) == 10
    assert lines[0] == graph.text.splitlines()[0]
    assert lines[2] == "  blocks.0–11 ×12: %0 → %5 → … → %60"
    assert lines[3].split("  ")[2].startswith("%1 = layer_norm(%0, [8], .weight, .bias")
    assert lines[-2].split()[2] == "linear(%60,"
    assert {line.index("f32[") for line in lines[3:8]} == {lines[1].index("f32[")}
    assert len(graph.text.splitlines()) == 2 + 2 + 5 * DEPTH, "the whole text is still there"


def test_a_program_in_every_block_folds_with_them() -> None:
    task = gp.compile(deep(), gp.Program([gp.Additive(at="hidden[*]")]))
    assert len(str(task.graph).splitlines()) == 11
    assert "%0 → %additive_0.0 → … → %additive_11.0" in str(task.graph)


@pytest.mark.parametrize("name", cases(["gpt2", "bert", "torchvision-resnet18", "timm-vit"]))
def test_what_is_folded_says_what_the_whole_text_says(name: str) -> None:
    _, graph = captured(name)
    whole = graph.text.splitlines()
    calls = [line.split(" = ")[0].strip() for line in whole[1:-1]]
    told = []
    for line in str(graph).splitlines()[1:-1]:
        count = int(line.partition("×")[2].partition(":")[0]) if "×" in line else 1
        told.append((line, count))
    shown = [line for line, count in told if count == 1]
    names = [line.split(" = ")[0].strip() for line in shown]
    assert set(names) <= set(calls)
    blocks = [(line, count) for line, count in told if count > 1]
    missing = len(calls) - len(names)
    indented = [
        list(group)
        for inside, group in itertools.groupby(told, lambda item: item[0].startswith("    "))
        if inside
    ]
    assert missing == sum(
        (count - 1) * len(group) for (_, count), group in zip(blocks, indented, strict=True)
    )


def test_rows_fold_where_numbers_count_up() -> None:
    rows = [Row(name) for name in ("a", "b.0.x", "b.0.y", "b.1.x", "b.1.y", "b.2.x", "b.2.y")]
    assert list(folded(rows)) == [0, Run(1, 2, 3)]
    assert list(folded([Row("b.0"), Row("b.2"), Row("b.4")])) == [0, 1, 2], "not by one"
    assert list(folded([Row("b.1", 1), Row("b.2", 2), Row("b.3", 1)])) == [0, 1, 2]
    assert list(folded([Row("b.9"), Row("b.10"), Row("b.11")])) == [Run(0, 1, 3)]
    assert list(folded([Row("b.0"), Row("b.1")])) == [0, 1], "nothing is saved"
    assert list(folded(rows[1:], least=1, linked=lambda run: run.count < 3)) == [Run(0, 2, 2), 4, 5]
    parts = [Row(f"{part}{number}.x") for number in (1, 2, 3) for part in ("conv", "norm", "act")]
    assert list(folded(parts)) == list(range(9)), "layers with numbers are not a block"
    first, last = "b.0.norm1:in", "b.11.norm1:in"
    assert ranged(first, last) == "b.0–11.norm1:in"
    assert starred(first, last) == "b.*.norm1:in"
    assert range_label(first, last) == "b.0–11"


def changed(text: str) -> list[str]:
    return [line for line in text.splitlines()[2:] if line[0] in "+-"]


def test_a_diff_is_a_program_and_what_reads_it() -> None:
    graph = deep()
    task = gp.compile(graph, gp.Program([gp.Additive(at="hidden[0]")]))
    lines = changed(graph.diff(task.graph))
    calls = [line[0] + line.split("  ")[1] for line in lines]
    weights = "[8], blocks.1.norm.weight, blocks.1.norm.bias, 1e-05, False"
    assert calls == [
        f"-%6 = layer_norm(%5, {weights})",
        "+%additive.0 = add.Tensor(%5, program.additive.value)",
        f"+%6 = layer_norm(%additive.0, {weights})",
        "-%10 = add.Tensor(%5, %9)",
        "+%10 = add.Tensor(%additive.0, %9)",
    ]
    back = changed(task.graph.diff(graph))
    assert sorted(line[1:] for line in back) == sorted(line[1:] for line in lines)
    assert sum(line[0] == "-" for line in back) == 3


def test_renumbering_is_not_a_difference() -> None:
    graph = deep()
    assert graph.diff(graph) == ""
    assert graph.diff(gp.capture(Deep().eval(), (torch.randn(2, 4),))) == ""
    task = gp.compile(graph, gp.Program([gp.Additive(at="hidden[*]")]))
    assert graph.diff(EraseProgram()(task.graph)) == ""
    one, other = (Insert(gp.Additive(at=f"hidden[{i}]", name=f"p{i}"))(graph) for i in (1, 2))
    names = {line.split()[1] for line in changed(one.diff(other)) if ".0 = " in line}
    assert names == {"%p1.0", "%p2.0"}


def test_another_operation_of_another_capture_is_a_difference() -> None:
    lines = changed(deep().diff(deep(odd=5)))
    assert [line.split()[3].split("(")[0] for line in lines] == ["gelu", "linear", "relu", "linear"]
    assert all("@blocks.5" in line for line in lines)


def test_shapes_that_follow_from_others_are_not_shown() -> None:
    _, graph = captured("transformer")
    prompt = gp.Concatenative(at="embedding", length=4)
    task = gp.compile(graph, gp.Program([prompt]))
    text = graph.diff(task.graph)
    assert "+  %concatenative.0 = " in text
    assert "f32[B,S+4,16]" in text
    shown = {line.split()[1] for line in changed(text) if line[0] == "-"}
    assert not any(f"{name} = gelu" in text for name in shown)
    assert "linear(" not in text, "linear layers compute as before, at another length"


def test_other_inputs_are_shown() -> None:
    small, large = (nn.Linear(size, 2).eval() for size in (3, 5))
    graphs = [gp.capture(one, (torch.randn(2, one.in_features),)) for one in (small, large)]
    assert "+graph (input: f32[B,5])" in graphs[0].diff(graphs[1])
    wide = gp.capture(nn.Linear(3, 4).eval(), (torch.randn(2, 3),))
    assert changed(graphs[0].diff(wide)), "the weight has another shape"


def test_a_summary_says_what_fits_where() -> None:
    _, graph = captured("transformer")
    summary = graph.summary()
    assert summary.inputs == {"input_ids": "i64[B,S]", "attention_mask": "i64[B,S]"}
    assert summary.outputs == {"logits": "f32[B,5]"}
    assert summary.parameters == sum(p.numel() for p in graph.weights.source.parameters())
    assert summary.bytes == 4 * summary.parameters
    assert summary.program_parameters == 0
    (tower,) = summary.towers
    assert (tower.blocks, tower.attention, tower.cross_attention) == (3, 3, 0)
    assert summary.programs["concatenative"] == "axis 1 of tokens, embedding, hidden[*]"
    assert summary.programs["prefix"] == "attention[*] (3)"
    assert summary.programs["replace tokens"] == "tokens"
    assert summary.programs["label mapping"] == "logits (5)"
    assert summary.programs["linear head"] == "features (16)"
    assert "hidden[*]" in summary.programs["additive"]
    lines = str(summary).splitlines()
    assert lines[0] == "Encoder"
    assert len(lines) < 20
    assert repr(summary) == str(summary)


def test_a_summary_of_images_and_of_towers() -> None:
    residual = captured("residual")[1].summary()
    assert residual.programs["concatenative"] == "axis 2 or 3 of input, embedding, hidden[*]"
    assert residual.programs["prefix"] == ""
    assert "nowhere" in str(residual)
    towers = captured("two-towers")[1].summary().towers
    assert [tower.name for tower in towers] == ["vision", "text"]
    assert str(towers[0]).startswith("vision: ")
    task = gp.compile(deep(), gp.Program([gp.Additive(at="hidden[0]")]))
    assert task.graph.summary().program_parameters == 8
    assert "+ 8 of the program" in str(task.graph.summary())


def test_a_model_without_a_head_has_places_for_one() -> None:
    """As of encoders that return the states and a pooled one."""

    class Headless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.states, self.pooler = nn.Linear(4, 6), nn.Linear(6, 5)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            states = self.states(x)
            return {"states": states, "pooled": self.pooler(states[:, 0])}

    graph = gp.capture(Headless().eval(), (torch.rand(2, 3, 4),))
    found = graph.summary().programs["linear head"]
    assert found == "states.logits (6), pooled.logits (5)"
    task = gp.compile(graph, gp.Program(align=gp.LinearHead(2, at="pooled.logits")))
    assert task(torch.rand(2, 3, 4)).shape == (2, 2)


def test_a_history_prints_as_a_table() -> None:
    graph = deep()
    task = gp.compile(graph, gp.Program([gp.Additive(at="hidden[0]")]))
    assert task.history is task.graph.history
    assert task.history[: len(graph.history)] == graph.history
    lines = str(task.history).splitlines()
    assert lines[0].split() == ["pass", "what", "it", "did", "time"]
    assert len(lines) == len(task.history) + 2
    assert lines[-1].startswith("insert{op=additive")
    assert "+2 nodes" in lines[-1]
    assert lines[-1].endswith(" ms")
    assert str(task.history[-1:]).splitlines()[-1].startswith("insert{")
    unchanged = Pipeline.parse("drop-dead-code")(graph).history
    assert "nothing" in str(unchanged).splitlines()[-1]


def test_steps_stay_steps() -> None:
    steps = Steps([Step("one", 1.0, True, 3)])
    longer = steps.followed_by(Step("x" * 100, 2.0, True, 3))
    assert isinstance(longer[1:], Steps)
    assert longer[0].text == "one"
    assert "…" in str(longer)
    assert max(map(len, str(longer).splitlines())) < 110


@pytest.mark.slow
def test_a_vision_transformer_prints_on_one_page() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224").eval()
    graph = gp.capture(model, (torch.zeros(2, 3, 224, 224),))
    for text in (str(graph.interfaces()), str(graph), str(graph.summary())):
        assert len(text.splitlines()) < 60
    assert "blocks.0–11 ×12" in runs(str(graph.interfaces()))
    assert "blocks.0–11 ×12" in runs(str(graph))
    assert graph.summary().programs["prefix"] == "attention[*] (12)"
