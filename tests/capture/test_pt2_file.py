"""Files of torch.export: data only, whatever they hold; nothing in them runs."""

from __future__ import annotations

import dataclasses
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import graphprog as gp
from graphprog.errors import FileError

PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


@dataclasses.dataclass
class Scores:
    """A result of a class of one's own."""

    logits: torch.Tensor
    rest: tuple[torch.Tensor, ...] | None = None


torch.export.register_dataclass(Scores, serialized_type_name="tests.Scores")


class Everything(nn.Module):
    """What files hold: a region, in-place operations, constants, sizes, tied weights, buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
        self.again.weight = self.first.weight
        self.register_buffer("table", torch.randn(4, 4).t())
        self.register_buffer("mask", torch.tensor([True, False, True, True]))

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> Scores:
        with torch.no_grad():
            kept = self.first(x) @ self.table
        rows = x.shape[0]
        high = kept.mul(scale).relu_() + torch.arange(rows * 2 // 2).view(-1, 1)
        low, _ = self.again(high).masked_fill(self.mask, -1.0).chunk(2, -1)
        return Scores(torch.cat([low, low * torch.tensor([1.5, 2.0])], 1), (low.repeat(rows, 1),))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("pt2") / "good.pt2"
    rows = {0: Dim.DYNAMIC}
    call = {"x": torch.randn(2, 4), "scale": torch.randn(2, 4)}
    program = torch.export.export(
        Everything().eval(), (call["x"],), {"scale": call["scale"]}, dynamic_shapes=[rows, rows]
    )
    torch.export.save(program, path)
    return path


def rewritten(
    source: Path, target: Path, change: Callable[[dict[str, Any]], Any], **options: Any
) -> Path:
    """Write a file whose members were changed; those that are JSON, as what they say."""
    with zipfile.ZipFile(source) as old:
        root = old.namelist()[0].partition("/")[0]
        members: dict[str, Any] = {}
        for name in old.namelist():
            data = old.read(name)
            members[name.partition("/")[2]] = json.loads(data) if name.endswith(".json") else data
    change(members)
    with zipfile.ZipFile(target, "w", **options) as new:
        for name, data in members.items():
            text = data if isinstance(data, bytes | str) else json.dumps(data)
            new.writestr(name[1:] if name.startswith("/") else f"{root}/{name}", text)
    return target


def test_what_a_file_holds_is_read_as_it_is(good: Path) -> None:
    found, trusted = gp.capture(good), gp.capture(good, trust=True)
    assert found.text.partition("\n")[2] == trusted.text.partition("\n")[2]
    assert found.weight_hash() == trusted.weight_hash()
    x, scale = torch.randn(2, 3, 4)
    result, wanted = found(x, scale=scale), trusted(x, scale=scale)
    assert type(result) is dict
    assert type(wanted) is Scores
    assert torch.equal(result["logits"], wanted.logits)
    assert torch.equal(result["rest"][0], wanted.rest[0])


def touched(path: Path) -> torch.Tensor:
    path.touch()
    return torch.zeros(1)


class Payload:
    """Unpickles as a call that makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return touched, (self.target,)


def first(members: dict[str, Any], target: str) -> dict[str, Any]:
    """Return the first operation whose name has a part."""
    nodes = members[PROGRAM]["graph_module"]["graph"]["nodes"]
    return next(node for node in nodes if target in node["target"])


def signature(members: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = members[PROGRAM]["graph_module"]["module_call_graph"][0]["signature"]
    return found


def structure(kind: str, context: Any) -> str:
    leaf = {"type": None, "context": None, "children_spec": []}
    text = context if isinstance(context, str) else json.dumps(context)
    return json.dumps([1, {"type": kind, "context": text, "children_spec": [leaf, leaf]}])


def holding(name: str) -> Callable[[dict[str, Any], Path], None]:
    """Add a pickled object to the constants, under a name that PyTorch unpickles."""

    def change(members: dict[str, Any], mark: Path) -> None:
        members[f"data/constants/{name}"] = pickle.dumps(Payload(mark))
        entry = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
        members[CONSTANTS]["config"]["held"] = entry

    return change


def pickled_weight(members: dict[str, Any], mark: Path) -> None:
    members["data/weights/weight_0"] = pickle.dumps(Payload(mark))
    members[WEIGHTS]["config"]["first.weight"]["use_pickle"] = True


def sized(text: str) -> Callable[[dict[str, Any], Path], None]:
    def change(members: dict[str, Any], mark: Path) -> None:
        values = members[PROGRAM]["graph_module"]["graph"]["tensor_values"]
        values["x"]["sizes"][0]["as_expr"]["expr_str"] = text.replace("MARK", str(mark))

    return change


def many_sizes(members: dict[str, Any], mark: Path) -> None:
    values = members[PROGRAM]["graph_module"]["graph"]["tensor_values"]
    values["x"]["sizes"] *= 1000  # their product takes minutes
    values["x"]["strides"] *= 1000


def named(text: str) -> Callable[[dict[str, Any], Path], None]:
    """Give an operation a name, which becomes Python code when the graph is compiled."""

    def change(members: dict[str, Any], mark: Path) -> None:
        data = json.dumps(members[PROGRAM])
        name = first(members, "aten.cat")["name"]
        code = json.dumps(text.replace("MARK", str(mark)))[1:-1]
        members[PROGRAM] = json.loads(data.replace(f'"{name}"', f'"{code}"'))

    return change


def second_program(members: dict[str, Any], mark: Path) -> None:
    text = f"__import__('pathlib').Path('{mark}').touch()"
    data = json.dumps(members[PROGRAM])
    members["models/other.json"] = data.replace("Symbol('s", f"{text} + Symbol('s")
    for name in (WEIGHTS, CONSTANTS, "data/sample_inputs/model.pt"):
        members[name.replace("model", "other")] = members[name]


def compiled(members: dict[str, Any], mark: Path) -> None:
    members["data/aotinductor/model/evil.so"] = b"\x7fELF"


def cast(**entries: Any) -> Callable[[dict[str, Any], Path], None]:
    def change(members: dict[str, Any], mark: Path) -> None:
        first(members, "aten.cat").update(entries)

    return change


def told(**entries: Any) -> Callable[[dict[str, Any], Path], None]:
    return lambda members, mark: signature(members).update(entries)


def weight(**entries: Any) -> Callable[[dict[str, Any], Path], None]:
    def change(members: dict[str, Any], mark: Path) -> None:
        members[WEIGHTS]["config"]["first.bias"]["tensor_meta"].update(entries)

    return change


def empty_weight(members: dict[str, Any], mark: Path) -> None:
    name = members[WEIGHTS]["config"]["first.bias"]["path_name"]
    members[f"data/weights/{name}"] = b""
    weight(sizes=[{"as_int": 2**40}])(members, mark)


def renamed(members: dict[str, Any], mark: Path) -> None:
    text = json.dumps(members[PROGRAM]).replace("first.bias", 'a\\"]; import os; #')
    members[PROGRAM] = json.loads(text)


def listed(members: dict[str, Any], mark: Path) -> None:
    first(members, "_operator.mul")["inputs"][0]["arg"] = {"as_ints": [0, 0]}


def ranged(members: dict[str, Any], mark: Path) -> None:
    members[PROGRAM]["range_constraints"]["u99999999999"] = {"min_val": 0, "max_val": 1}


def elsewhere(members: dict[str, Any], mark: Path) -> None:
    members["/other/archive_format"] = b"pt2"


def without(members: dict[str, Any], mark: Path) -> None:
    del members[CONSTANTS]


_FACTORY = {"default_factory_module": "antigravity", "default_factory_name": "x"}
_ENUM = {"__enum__": True, "fqn": "antigravity:x", "name": "x"}
_FILE = {"name": "filename", "arg": {"as_string": "/etc/passwd"}, "kind": 1}
_SYMBOL = "Symbol('s0', integer=True)"
_DEEP = "Add(" * 40 + _SYMBOL + ", 1)" * 40

HOSTILE: dict[str, tuple[Callable[[dict[str, Any], Path], None], str]] = {
    "opaque object": (holding("opaque_obj_0"), "opaque_obj_0', which is a pickled object"),
    "custom object": (holding("custom_obj_0"), "custom_obj_0', which is a pickled object"),
    "pickled constant": (holding("tensor_7"), "the constant 'held' is a pickled object"),
    "pickled weight": (pickled_weight, "the weight 'first.weight' is a pickled object"),
    "compiled code": (compiled, "evil.so', which is compiled code"),
    "second program": (second_program, "models/other.json', which is a second program"),
    "code as a size": (sized("__import__('pathlib').Path('MARK').touch()"), "is not a size"),
    "tower of powers": (sized("9**9**9**9"), "'9\\*\\*9\\*\\*9\\*\\*9' is not a size"),
    "high power": (sized(f"Pow({_SYMBOL}, Integer(999999))"), "is not a size: a power"),
    "deep size": (sized(_DEEP), "nested deeper"),
    "wide size": (sized(f"Mul({', '.join([f'Add({_SYMBOL}, 1)'] * 40)})"), "more parts"),
    "many sizes": (many_sizes, "a shape of 2000 dimensions, and tensors have 64 at most"),
    "call in a size": (sized("exit(1)"), "is not a size"),
    "attribute in a size": (sized(f"{_SYMBOL}.subs"), "is not a size"),
    "long counter": (ranged, "'u99999999999' is not one"),
    "file": (cast(target="torch.ops.aten.from_file.default", inputs=[_FILE]), "aten::from_file"),
    "network": (cast(target="torch.ops.c10d.send.default"), "c10d::send.default' may not be"),
    "function of torch": (cast(target="torch.hub.load"), "'torch.hub.load' may not be"),
    "function of operator": (cast(target="_operator.methodcaller"), "'operator.methodcaller' may"),
    "higher order": (cast(target="torch.ops.higher_order.cond"), "cond' runs code"),
    "unknown entry": (cast(hook="x"), "has an entry 'hook'"),
    "lists as numbers": (listed, "'_operator.mul' on numbers is given something else"),
    "code as a name": (named("x = open('MARK', 'w')"), "is not a name"),
    "code as a weight": (renamed, "is not the path of a weight"),
    "code as an argument": (
        told(forward_arg_names=["x=exit()", "y"]),
        "'x=exit\\(\\)' is not a name",
    ),
    "factory": (told(out_spec=structure("collections.defaultdict", _FACTORY)), "defaultdict"),
    "enumeration": (told(out_spec=structure("builtins.dict", [_ENUM, "b"])), "builtins.dict"),
    "class": (told(in_spec=structure("tests.Scores", [["logits", "rest"], []])), "tests.Scores"),
    "empty member": (empty_weight, "'first.bias' has shape \\[1099511627776\\]"),
    "beyond its bytes": (weight(sizes=[{"as_int": 5}]), "'first.bias' has shape \\[5\\]"),
    "negative size": (weight(sizes=[{"as_int": -4}]), "is not a size of a stored tensor"),
    "symbolic size": (weight(sizes=[{"as_expr": {"expr_str": "s0"}}]), "is not a size"),
    "unknown dtype": (weight(dtype=77), "'first.bias' has an unknown dtype"),
    "two folders": (elsewhere, "its members are in 2 folders"),
    "missing member": (without, "it has no data/constants/model_constants_config.json"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_data_is_refused_by_name(name: str, good: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    change, message = HOSTILE[name]
    path = rewritten(good, tmp_path / "bad.pt2", lambda members: change(members, mark))
    with pytest.raises(FileError, match=message) as caught:
        gp.capture(path)
    assert str(path) in str(caught.value)
    assert not mark.exists()


def test_trust_opens_what_is_refused(good: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    path = rewritten(
        good, tmp_path / "own.pt2", lambda members: holding("opaque_obj_0")(members, mark)
    )
    with pytest.raises(FileError, match="pass trust=True if the file is your own"):
        gp.capture(path)
    assert not mark.exists()
    gp.capture(path, trust=True)
    assert mark.exists()


def test_archives_that_two_readers_may_read_in_two_ways(good: Path, tmp_path: Path) -> None:
    path = rewritten(good, tmp_path / "x.pt2", lambda _: None, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(FileError, match="compressed or encrypted"):
        gp.capture(path)
    path = rewritten(good, tmp_path / "y.pt2", lambda _: None)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("good/" + PROGRAM, "{}")
    with pytest.raises(FileError, match="two of its members have the same name"):
        gp.capture(path)


def test_pickled_example_inputs_are_not_opened(good: Path, tmp_path: Path) -> None:
    mark, name = tmp_path / "it-ran", "data/sample_inputs/model.pt"
    data = pickle.dumps(Payload(mark))
    path = rewritten(good, tmp_path / "x.pt2", lambda members: members.update({name: data}))
    assert gp.capture(path).placeholders
    assert not mark.exists()


def test_operations_of_other_libraries_need_trust(tmp_path: Path) -> None:
    library = torch.library.Library("graphprog_tests", "DEF")
    library.define("half(Tensor x) -> Tensor")
    library.impl("half", lambda x: x / 2, "CompositeExplicitAutograd")
    library.impl("half", lambda x: torch.empty_like(x), "Meta")

    class Halved(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.graphprog_tests.half(x)

    torch.export.save(torch.export.export(Halved(), (torch.ones(2),)), tmp_path / "x.pt2")
    with pytest.raises(FileError, match=r"(?s)graphprog_tests::half.default.*trust=True"):
        gp.capture(tmp_path / "x.pt2")
    found = gp.capture(tmp_path / "x.pt2", trust=True)
    assert torch.equal(found(torch.ones(2)), torch.ones(2) / 2)
