"""graphprog as users meet it: wheel, sdist, editable install, checkout that is not installed."""

from __future__ import annotations

import json
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import graphprog
from tests.support.environments import (
    bare_environment,
    copy_checkout,
    python_of,
    run,
    run_ok,
    source_modules,
)

pytestmark = pytest.mark.xdist_group("installs")

IMPORT_ALL = """
import importlib, json, sys
print(json.dumps({name: importlib.import_module(name).__file__ for name in sys.argv[1:]}))
"""

TRIVIAL_TEST = """
from pathlib import Path
import graphprog, graphprog.backends, graphprog.passes

ROOT = Path(__file__).resolve().parent.parent

def test_modules_come_from_the_checkout():
    for module, folder in [
        (graphprog, "graphprog"), (graphprog.backends, "backends"), (graphprog.passes, "passes")
    ]:
        assert Path(module.__file__) == ROOT / folder / "__init__.py"
"""


def import_all(commands: Path, cwd: Path, *path: Path) -> dict[str, str]:
    """Import every module of the checkout by name in a new interpreter; name -> file."""
    command = [python_of(commands), "-c", IMPORT_ALL, *sorted(source_modules())]
    files: dict[str, str] = json.loads(run_ok(command, cwd, *path).splitlines()[-1])
    return files


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_environment(tmp_path_factory.mktemp("bare") / "environment")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an sdist, and of the wheel built from that sdist."""
    checkout = copy_checkout(tmp_path_factory.mktemp("build") / "checkout")
    run_ok([sys.executable, "-m", "build", "--no-isolation"], checkout)
    return checkout / "dist"


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as site-packages would hold it, beside a stranger that is called passes."""
    target = tmp_path_factory.mktemp("site")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    (target / "passes").mkdir()
    (target / "passes" / "__init__.py").write_text("raise SystemExit('not the passes wanted')\n")
    return target


def test_the_wheel_holds_the_modules_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    expected = {"graphprog/py.typed", "graphprog/ir/drawing/page.html"}
    for name, file in source_modules().items():
        inner = "/__init__.py" if file.name == "__init__.py" else ".py"
        expected.add(name.replace(".", "/") + inner)
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_has_the_version_of_the_module(unpacked: Path) -> None:
    (metadata,) = unpacked.glob("graphprog-*.dist-info/METADATA")
    fields = Parser().parsestr(metadata.read_text(encoding="utf-8"))
    assert fields["Version"] == graphprog.__version__
    assert fields["License-Expression"] == "Apache-2.0"


def test_the_sdist_can_be_tested(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"Makefile", "constraints.txt", "tests/conftest.py", "tests/support/environments.py"}
    assert wanted | {"tools/typecheck.py", "LICENSE", "CHANGELOG.md"} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_every_module_of_the_wheel_imports(commands: Path, unpacked: Path, tmp_path: Path) -> None:
    files = import_all(commands, tmp_path, unpacked)
    assert all(Path(file).is_relative_to(unpacked) for file in files.values()), files


def test_a_stranger_called_passes_is_left_alone(
    commands: Path, unpacked: Path, tmp_path: Path
) -> None:
    show = "import graphprog; print(*graphprog.__path__, sep='\\n')"
    printed = run_ok([python_of(commands), "-c", show], tmp_path, unpacked)
    assert printed.splitlines() == [str(unpacked / "graphprog")]


@pytest.mark.parametrize(
    "installed",
    [
        pytest.param(False, id="not-installed"),
        pytest.param(True, id="wheel-installed", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "module",
    [
        pytest.param(False, id="pytest"),
        pytest.param(True, id="python-m-pytest", marks=pytest.mark.slow),
    ],
)
def test_pytest_in_a_checkout(
    commands: Path, unpacked: Path, tmp_path: Path, installed: bool, module: bool
) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    (checkout / "tests" / "test_trivial.py").write_text(TRIVIAL_TEST)
    script = commands / "run-pytest"  # like the command pip writes: the checkout is not on sys.path
    script.write_text("from pytest import console_main\nraise SystemExit(console_main())\n")
    start: list[str | Path] = ["-m", "pytest"] if module else [script]
    options: list[str | Path] = ["-q", "-p", "no:cacheprovider", "tests/test_trivial.py"]
    command = [python_of(commands), *start, *options]
    printed = run_ok(command, checkout, *([unpacked] if installed else []))
    assert "1 passed" in printed


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "strict"])
def test_editable_install(tmp_path: Path, mode: str) -> None:
    commands = bare_environment(tmp_path / "environment")
    checkout = copy_checkout(tmp_path / "checkout")
    options = ["--no-deps", "--no-build-isolation"]
    if mode == "strict":
        options.append("--config-settings=editable_mode=strict")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python_of(commands)]
    run_ok([*pip, "install", *options, "-e", checkout], tmp_path)
    for folder in (tmp_path, checkout):
        files = import_all(commands, folder)
        if mode == "default":
            assert {name: Path(file) for name, file in files.items()} == source_modules(checkout)


@pytest.mark.slow
def test_the_type_checker_sees_mapped_folders(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    (checkout / "passes" / "wrong.py").write_text("number: int = 'text'\n")
    done = run([sys.executable, "tools/typecheck.py"], checkout)
    assert done.returncode == 1
    assert "passes/wrong.py:1: error: Incompatible types in assignment" in done.stdout
    assert "graphprog/passes/wrong.py" not in done.stdout
