from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import graphprog as gp
from graphprog.compile import lower
from graphprog.errors import FileError, InterfaceError, PassError
from graphprog.graph import Graph, Site, copy_code
from graphprog.interface import Edge
from graphprog.passes import DropDeadCode, DropDropout, EraseProgram
from graphprog.passes.align import Align
from graphprog.passes.base import Pass, watching
from graphprog.passes.insert import Insert, ReplaceInput
from graphprog.passes.pipeline import Pipeline
from graphprog.passes.verify import CHECKS, verify
from graphprog.spec import spec
from graphprog.weights import Weights
from tests.corner_models import ResidualNet
from tests.zoo import CASES, captured

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str, text: str) -> None:
    """Compare with a kept text; GRAPHPROG_UPDATE_GOLDEN=1 keeps the new one instead."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GRAPHPROG_UPDATE_GOLDEN") == "1":
        path.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == path.read_text(encoding="utf-8")


PROGRAMS = {
    "additive": gp.Program(
        [gp.Additive(mask=gp.masks.border(inner=8), squash="tanh", clip=(-1.0, 1.0))]
    ),
    "steering": gp.Program([gp.Additive(at="hidden[*]", value=gp.Learnable(shape=(8, 1, 1)))]),
    "place": gp.Program(
        [gp.Place(shape=(1, 5, 5), size=9), gp.Additive(mask=gp.masks.border(inner=9))],
        contract=gp.Contract("unit", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
    ),
    "align": gp.Program([gp.Additive()], align=gp.LinearHead(4, on="features")),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_text_of_a_rewritten_graph(name: str) -> None:
    _, graph = captured("residual")
    pipeline = lower(PROGRAMS[name])
    rewritten = pipeline(graph)
    golden(name, f"{pipeline}\n\n{rewritten}\n\n{graph.diff(rewritten)}")


def test_text_of_captured_graphs() -> None:
    golden("captured", "\n\n".join(str(captured(name)[1]) for name in ("residual", "transformer")))
    golden("interfaces", str(captured("residual")[1].interfaces()))


@spec("test-misbehaving")
@dataclasses.dataclass(frozen=True)
class Misbehaving(Pass):
    """Raises where it is told to."""

    where: str = "nowhere"

    def requires(self, graph: Graph) -> None:
        if self.where == "requires":
            raise PassError("the graph is not fit")

    def run(self, graph: Graph) -> Graph:
        if self.where == "run":
            raise ZeroDivisionError("within the pass")
        return graph

    def ensures(self, before: Graph, after: Graph) -> None:
        if self.where == "ensures":
            raise PassError("the promise is broken")


@spec("test-later")
@dataclasses.dataclass(frozen=True)
class Later(Misbehaving):
    after = ("insert", "test-misbehaving")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("requires", "the graph is not fit"),
        ("run", r'pass test-misbehaving\{where="run"\} failed on ResidualNet: ZeroDivisionError'),
        ("ensures", "the promise is broken"),
    ],
)
def test_an_error_names_the_pass_its_place_and_what_ran_before(where: str, message: str) -> None:
    pipeline = Pipeline((DropDeadCode(), DropDropout(), Misbehaving(where)))
    with pytest.raises(PassError, match=message) as caught:
        pipeline(captured("residual")[1])
    assert caught.value.__notes__ == [
        "in pass 2 of the pipeline, test-misbehaving; before: drop-dead-code ; drop-dropout"
    ]
    if where == "run":
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_first_pass_has_nothing_before_it() -> None:
    with pytest.raises(InterfaceError) as caught:
        Pipeline((Insert(gp.Additive(at="nowhere")),))(captured("residual")[1])
    assert caught.value.__notes__ == ["in pass 0 of the pipeline, insert; before: nothing"]


def test_a_wrong_order_is_refused_before_anything_runs() -> None:
    ran: list[Pass] = []
    pipeline = Pipeline((DropDeadCode(), Later(), Misbehaving()))
    message = r"'test-later' at position 1 must come after 'test-misbehaving'"
    with watching(lambda item, *_: ran.append(item)), pytest.raises(PassError, match=message):
        pipeline(captured("residual")[1])
    assert not ran
    Pipeline((Misbehaving(), Later()))(captured("residual")[1])
    wrong = Pipeline((Align(gp.RandomMap(classes=3)), Insert(gp.Additive())))
    with pytest.raises(PassError, match="'align' at position 0 must come after 'insert'"):
        wrong(captured("residual")[1])


def test_history_tells_what_each_pass_did() -> None:
    _, graph = captured("residual")
    result = Pipeline((DropDeadCode(), Insert(gp.Additive())))(graph)
    first, second = result.history[len(graph.history) :]
    assert (first.text, first.changed) == ("drop-dead-code", False)
    assert (second.text, second.changed) == ("insert{op=additive}", True)
    assert second.milliseconds > 0
    assert second.nodes == len(result.nodes) > first.nodes
    assert "changed nothing" in str(first)
    kinds = [step.text for step in graph.history]
    assert kinds[:3] == ["inline-regions", "drop-asserts", "functionalise"]


def test_a_pass_leaves_the_graph_it_is_given() -> None:
    _, graph = captured("residual")
    before = (str(graph), dict(graph.sites), graph.history, list(graph.nodes))
    lower(PROGRAMS["place"])(graph)
    assert (str(graph), dict(graph.sites), graph.history, list(graph.nodes)) == before


@pytest.mark.parametrize("name", PROGRAMS)
def test_erasing_gives_the_source_back(name: str) -> None:
    _, graph = captured("residual")
    erased = EraseProgram()(lower(PROGRAMS[name])(graph))
    assert graph.diff(erased) == ""
    assert not erased.insertions
    (x,), _ = CASES["residual"].call(3)
    with torch.no_grad():
        assert torch.equal(erased(x), graph(x))


VECTORS = st.tuples(*(st.floats(-2, 2) for _ in range(3)))
INSERTS = st.builds(
    Insert,
    st.builds(
        gp.Additive,
        at=st.text(max_size=8),
        name=st.text(max_size=8),
        squash=st.sampled_from(["none", "sigmoid", "tanh"]),
        clip=st.none() | st.just((-1.0, 2.5)),
        value=st.builds(gp.Learnable, st.sampled_from(["zeros", "normal"]), st.floats(0, 9))
        | VECTORS.map(lambda numbers: gp.Fixed(torch.tensor(numbers))),
        mask=st.builds(gp.masks.border, st.integers(0, 99))
        | st.just(gp.masks.full())
        | VECTORS.map(lambda numbers: gp.masks.given(torch.tensor(numbers))),
    ),
    seed=st.integers(0, 2**62),
)
ALIGNS = st.builds(
    Align,
    st.builds(gp.BayesianMap, st.integers(1, 9)) | st.builds(gp.LinearHead, st.integers(1, 9)),
)
PASSES = st.lists(
    INSERTS | ALIGNS | st.sampled_from([DropDeadCode(), DropDropout(), Misbehaving("run")]),
    max_size=5,
)


@given(passes=PASSES)
@settings(max_examples=60)
def test_any_pipeline_is_what_its_text_says(passes: list[Pass]) -> None:
    pipeline = Pipeline(tuple(passes))
    tensors: dict[str, torch.Tensor] = {}
    text = pipeline.text(tensors)
    again = Pipeline.parse(text, tensors)
    assert again == pipeline
    assert again.text() == text


@pytest.mark.parametrize(
    "text", ["nothing-such", "insert", "align ;", "; align", '"text"', "insert{"]
)
def test_text_that_is_no_pipeline(text: str) -> None:
    with pytest.raises(FileError):
        Pipeline.parse(text)


def test_a_pass_of_another_package_is_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "other_passes.py").write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "from graphprog.passes.base import Pass\n"
        "from graphprog.spec import spec\n"
        "@spec('other-pass')\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Other(Pass):\n"
        "    strength: int = 1\n"
        "    def run(self, graph):\n"
        "        return graph\n"
    )
    info = tmp_path / "other_passes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-passes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[graphprog.specs]\nother-pass = other_passes:Other\n")
    code = (
        "import sys; from graphprog.passes.pipeline import Pipeline\n"
        "text = 'drop-dead-code ; other-pass{strength=3}'\n"
        "assert 'other_passes' not in sys.modules\n"
        "assert str(Pipeline.parse(text)) == text\n"
    )
    root = Path(gp.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def damaged(graph: Graph) -> tuple[Graph, dict[str, Any]]:
    """A copy whose code may be spoilt, and its nodes by the name of their operation."""
    code, _ = copy_code(graph.code)
    for node in code.nodes:
        node.meta = dict(node.meta)
    copy = dataclasses.replace(graph, code=code)
    return copy, {node.name: node for node in code.nodes}


def with_dangling_weight(graph: Graph) -> Graph:
    copy, _ = damaged(graph)
    next(iter(copy.code.find_nodes(op="get_attr"))).target = "source.gone"
    return copy


def with_stale_site(graph: Graph) -> Graph:
    sites = {**graph.sites, "ghost:out": Site("ghost", ())}
    return dataclasses.replace(graph, sites=sites)


def with_stale_edge(graph: Graph) -> Graph:
    site = graph.sites["blocks.0:out"]
    edges = (Edge(site.edges[0].user, 1 - site.edges[0].slot),)
    sites = {**graph.sites, "blocks.0:out": dataclasses.replace(site, edges=edges)}
    return dataclasses.replace(graph, sites=sites)


def with_missing_value(graph: Graph) -> Graph:
    copy, _ = damaged(graph)
    del copy.output_nodes[0].meta["val"]
    return copy


def with_stale_value(graph: Graph) -> Graph:
    copy, _ = damaged(graph)
    node = copy.output_nodes[0]
    with node.meta["val"].fake_mode:
        node.meta["val"] = node.meta["val"][:, :3]
    return copy


def with_other_operation(graph: Graph) -> Graph:
    copy, _ = damaged(graph)
    relu = next(n for n in copy.code.nodes if n.target is torch.ops.aten.relu.default)
    relu.target = torch.ops.aten.sigmoid.default
    return copy


def with_other_order(graph: Graph) -> Graph:
    """An operation reads what is computed after it."""
    copy, _ = damaged(graph)
    first = next(n for n in copy.code.nodes if n.op == "call_function")
    first.args = (copy.output_nodes[0], *first.args[1:])
    return copy


def with_copied_weights(graph: Graph) -> Graph:
    return dataclasses.replace(graph, weights=Weights(nn.Module()))


DAMAGE = {
    with_dangling_weight: "structure: source.gone names nothing",
    with_stale_site: "structure: interface ghost:out lies at a node that is gone",
    with_stale_edge: "structure: interface blocks.0:out has a stale edge",
    with_other_order: "structure: ",
    with_missing_value: "metadata: .* has no fake value",
    with_stale_value: "metadata: .* is recorded as",
    with_other_operation: "meaning: erasing the program does not give the source back",
    with_copied_weights: "structure: .* names nothing",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_verification_finds_damage(damage: Any) -> None:
    _, graph = captured("residual")
    verify(graph, graph)
    with pytest.raises(PassError, match=DAMAGE[damage]):
        verify(damage(graph), graph)


def test_verification_finds_weights_that_are_copied_or_can_train() -> None:
    torch.manual_seed(0)
    model = ResidualNet().eval()
    graph, other = (gp.capture(model, (torch.randn(2, 3, 16, 16),)) for _ in range(2))
    with pytest.raises(PassError, match="frozenness: the source weights were copied"):
        verify(dataclasses.replace(graph, weights=other.weights), graph)
    graph.weights.source.requires_grad_(True)
    with pytest.raises(PassError, match=r"frozenness: source\..* can train"):
        verify(graph, graph)


def test_verification_finds_a_size_that_became_fixed() -> None:
    graph = gp.capture(ResidualNet().eval(), (torch.randn(2, 3, 16, 16),))
    verify(graph, graph)
    assert int(graph.placeholders[0].meta["val"].shape[0]) == 2  # asking fixes it
    with pytest.raises(PassError, match="polymorphism: size B became 2"):
        verify(graph, graph)


def test_every_check_has_been_seen_to_fail() -> None:
    shown = {text.partition(":")[0] for text in DAMAGE.values()}
    assert shown | {"frozenness", "polymorphism"} == set(CHECKS)


@spec("test-fixing")
@dataclasses.dataclass(frozen=True)
class Fixing(gp.Manipulation):
    """Works for the batch size of the example only."""

    how: str = "compare"

    def build(self, value: torch.Tensor, where: str, generator: torch.Generator) -> nn.Module:
        how = self.how

        class Module(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if how == "compare":
                    return x + 1 if x.shape[0] == 2 else x
                return x * int(x.shape[0]) if how == "int" else x[:, :1]

        return Module()


@pytest.mark.parametrize("how", ["compare", "int"])
def test_code_that_fixes_a_size_is_refused_and_spoils_nothing(how: str) -> None:
    _, graph = captured("residual")
    program = gp.Program([Fixing(how, at="hidden[0]")])
    with pytest.raises(PassError, match=r"(?s)blocks.0:out: Module cannot run.*let sizes vary"):
        gp.compile(graph, program)
    verify(graph, graph)
    (x,), _ = CASES["residual"].call(5)
    gp.compile(graph, gp.Program([gp.Additive()]))(x)


def test_a_manipulation_keeps_the_type_of_a_value() -> None:
    with pytest.raises(InterfaceError, match=r"blocks.0:out: the manipulation turns .*\[s?\w+, 1"):
        gp.compile(captured("residual")[1], gp.Program([Fixing("slice", at="hidden[0]")]))


def capture_seeded(change: Any = None) -> Graph:
    torch.manual_seed(0)
    model = ResidualNet().eval()
    if change is not None:
        with torch.no_grad():
            change(model)
    return gp.capture(model, (torch.randn(2, 3, 16, 16),))


def test_fingerprints_are_stable_and_tell_models_apart(tmp_path: Path) -> None:
    own = capture_seeded().fingerprint
    assert capture_seeded().fingerprint == own
    weight = capture_seeded(lambda m: m.blocks[2].conv.bias[3].add_(1e-6)).fingerprint
    assert (weight.text, weight.weights != own.weights) == (own.text, True)
    buffer = capture_seeded(lambda m: m.blocks[0].norm.running_var[0].add_(1e-6)).fingerprint
    assert (buffer.text, buffer.weights != own.weights) == (own.text, True)
    operation = capture_seeded(lambda m: setattr(m.blocks[1], "relu", nn.GELU())).fingerprint
    assert (operation.text != own.text, operation.weights) == (True, own.weights)


def test_fingerprints_agree_between_processes() -> None:
    code = (
        "import torch, graphprog as gp; from tests.corner_models import ResidualNet\n"
        "torch.manual_seed(0); model = ResidualNet().eval()\n"
        "print(gp.capture(model, (torch.randn(2, 3, 16, 16),)).fingerprint.text)\n"
    )
    root = str(Path(gp.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == [capture_seeded().fingerprint.text]


def test_a_file_has_the_fingerprint_of_its_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = ResidualNet().eval(), torch.randn(2, 3, 16, 16)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "ResidualNet.pt2")
    own, file = gp.capture(model, (x,)), gp.capture(tmp_path / "ResidualNet.pt2")
    assert file.fingerprint == own.fingerprint


def test_a_diff_shows_what_changed_and_nothing_else() -> None:
    _, graph = captured("residual")
    assert graph.diff(graph) == ""
    rewritten = Insert(gp.Additive(at="features"))(graph)
    lines = [line for line in graph.diff(rewritten).splitlines()[2:] if line[0] in "+-"]
    assert [line[0] for line in lines] == ["-", "+", "+"], "one value, and the layer that reads it"
    assert "%additive.0 = add.Tensor(%13, program.additive.value)" in lines[1]


def test_an_input_is_replaced_once_and_first() -> None:
    _, graph = captured("residual")
    place = gp.Place(shape=(1, 8, 8))
    placed = ReplaceInput(place, place.shape)
    with pytest.raises(PassError, match="already changed; place must come first"):
        placed(Insert(gp.Additive())(graph))
    with pytest.raises(PassError, match="already changed"):
        placed(placed(graph))
    with pytest.raises(InterfaceError, match=r"acts on a model input, not at blocks.0:out"):
        ReplaceInput(gp.Place(at="hidden[0]", shape=(1, 8, 8)), (1, 8, 8))(graph)
    with pytest.raises(PassError, match="already aligned"):
        Align(gp.RandomMap(classes=2))(Align(gp.RandomMap(classes=2))(graph))
