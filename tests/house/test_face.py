"""What `import graphprog` shows and loads: public names only, each imported when it is used."""

from __future__ import annotations

import ast
import importlib
import os
import sys
from types import ModuleType

import pytest

import graphprog as gp
from graphprog.spec.kinds import PLACES
from tests.support.environments import ROOT, run_ok, source_modules

FACES = ("graphprog", "graphprog.passes", "graphprog.text")
LIBRARIES = (
    "accelerate",
    "huggingface_hub",
    "matplotlib",
    "networkx",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "rich",
    "safetensors",
    "sympy",
    "tensorboard",
    "torch._dynamo",
    "torchmetrics",
)
USED_BY_NAMING = {
    "accelerate": {"fit", "fit_many", "evaluate", "Evaluation", "reprogram"},
    "huggingface_hub": {"pull", "push", "peft"},
    "rich": {
        "attribute",
        "contrast",
        "fit",
        "fit_many",
        "generate",
        "lens",
        "patch",
        "probe",
        "record",
        "reprogram",
    },
}
"""Libraries that the module of a name imports, by the names that need them."""

FIRST = (
    "import graphprog",
    "import graphprog.capture",
    "import graphprog.capture.capture",
    "from graphprog.capture import lift",
    "from graphprog.capture.capture import capture",
    "from graphprog import *",
    "import graphprog; graphprog.capture; import graphprog.capture.taps",
)


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    return run_ok([sys.executable, "-c", code], ROOT, ROOT)


def loaded(code: str) -> set[str]:
    """Which of the libraries are imported by a fresh interpreter that runs some code."""
    report = f"import sys, torch\nbefore = set(sys.modules)\n{code}\n"
    return set(python(f"{report}print(*(set({LIBRARIES}) & set(sys.modules) - before))").split())


def test_importing_graphprog_loads_no_library_beside_torch() -> None:
    assert loaded("import graphprog") == set()


def test_a_library_loads_when_a_name_that_needs_it_is_used() -> None:
    needing = set().union(*USED_BY_NAMING.values())
    names = sorted(set(gp.__all__) - needing)
    code = f"import graphprog as gp\nfor name in {names}: getattr(gp, name)"
    wanted = {"sympy", "torch._dynamo", "safetensors"}  # of torch.export; of files
    assert loaded(code) <= wanted


@pytest.mark.parametrize("package", FACES)
def test_public_names_are_all_that_is_shown(package: str) -> None:
    face = importlib.import_module(package)
    starred: dict[str, object] = {}
    exec(f"from {package} import *", starred)
    assert sorted(starred.keys() - {"__builtins__"}) == face.__all__
    assert [name for name in dir(face) if name != "__version__"] == face.__all__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'graphprog' has no attribute 'nothing'"):
        _ = gp.nothing  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="every import is the first of a process")
def test_a_verb_stays_a_verb_whatever_is_imported_first() -> None:
    code = f"""
import os, torch
for first in {FIRST}:
    if os.fork() == 0:
        exec(first, {{}})
        import graphprog as gp
        from graphprog import capture
        print(gp.capture is capture, capture.__module__, callable(capture), flush=True)
        os._exit(0)
    os.wait()
"""
    expected = "True graphprog.capture.capture True\n"
    assert python(code) == len(FIRST) * expected


def test_every_public_name_is_where_its_object_is_defined() -> None:
    for name in gp.__all__:
        value = getattr(gp, name)
        place = gp.__places__[name]  # type: ignore[attr-defined]
        if not isinstance(value, ModuleType):
            assert place == f"{value.__module__}:{name}"


def test_every_kind_of_spec_has_its_place() -> None:
    found: dict[str, str] = {}
    for module, path in source_modules().items():
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            for mark in getattr(statement, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "spec":
                    assert isinstance(statement, ast.ClassDef)
                    assert isinstance(mark.args[0], ast.Constant)
                    found[str(mark.args[0].value)] = module
    assert found == PLACES
