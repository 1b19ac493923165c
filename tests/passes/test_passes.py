from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import graphprog as gp
from graphprog.compiler.compile import lower
from graphprog.errors import FileError, InterfaceError, PassError
from graphprog.ir.graph import Graph
from graphprog.passes import DropDeadCode, DropDropout
from graphprog.passes.base import Pass, watching
from graphprog.passes.insert.align import Align
from graphprog.passes.insert.insert import Insert, ReplaceInput
from graphprog.passes.pipeline import Pipeline
from graphprog.passes.verify import verify
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from tests.models.programs import PROGRAMS
from tests.models.zoo import CASES, captured


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
    assert kinds[:3] == ["inline-regions", "drop-asserts", "functionalize"]


def test_a_pass_leaves_the_graph_it_is_given() -> None:
    _, graph = captured("residual")
    before = (graph.text, dict(graph.sites), graph.history, list(graph.nodes))
    lower(PROGRAMS["resize-pad"])(graph)
    assert (graph.text, dict(graph.sites), graph.history, list(graph.nodes)) == before


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


@spec("test-fixing")
@dataclasses.dataclass(frozen=True)
class Fixing(gp.Manipulation):
    """Works for the batch size of the example only."""

    how: str = "compare"

    def build(self, context: BuildContext) -> nn.Module:
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
    with pytest.raises(PassError, match=r"(?s)blocks.0:out: Module cannot run.*keep sizes dynamic"):
        gp.compile(graph, program)
    verify(graph, graph)
    (x,), _ = CASES["residual"].call(5)
    gp.compile(graph, gp.Program([gp.Additive()]))(x)


def test_a_manipulation_keeps_the_type_of_a_value() -> None:
    with pytest.raises(InterfaceError, match=r"blocks.0:out: the manipulation turns .*\[s?\w+, 1"):
        gp.compile(captured("residual")[1], gp.Program([Fixing("slice", at="hidden[0]")]))


def test_an_input_is_replaced_once_and_first() -> None:
    _, graph = captured("residual")
    place = gp.ResizePad(shape=(1, 8, 8))
    placed = ReplaceInput(place, place.shape)
    with pytest.raises(PassError, match="already changed; resize-pad must come first"):
        placed(Insert(gp.Additive())(graph))
    with pytest.raises(PassError, match="already changed"):
        placed(placed(graph))
    with pytest.raises(InterfaceError, match=r"acts on a model input, not at blocks.0:out"):
        ReplaceInput(gp.ResizePad(at="hidden[0]", shape=(1, 8, 8)), (1, 8, 8))(graph)
    with pytest.raises(PassError, match="already aligned"):
        Align(gp.RandomMap(classes=2))(Align(gp.RandomMap(classes=2))(graph))
