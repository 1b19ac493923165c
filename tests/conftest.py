"""What holds for every test: threads, torchvision beside a CPU torch, GPU tests, hypothesis."""

from __future__ import annotations

import gc
import os

# Workers share the cores, so each gets one thread. The variables are read when the libraries
# load, and subprocesses inherit them.
_IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if _IS_WORKER:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# On a GPU, products of float32 are those of the processor, to the digits that tests compare.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from graphprog.ir.graph import Graph
from graphprog.passes.base import Pass, watching
from graphprog.passes.erase import EraseProgram
from graphprog.passes.verify import verify
from tests.support.cpu_torchvision import declare_missing_operators
from tests.support.servers.hub_server import hub as hub

if _IS_WORKER:
    torch.set_num_threads(1)

TORCHVISION_OPERATORS = declare_missing_operators()

# The first example of a test pays for imports and tracing, which a deadline would call slow.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=30)
hypothesis.settings.register_profile("thorough", deadline=None)


REPEATED = Path(__file__).with_name("repeated.txt")

Golden = Callable[[Path, str], None]
"""Compares a text with a file."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden texts anew, then compare"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare with a kept text, or keep the new one where ``--update-golden`` asks for it."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), (
            f"if the change is meant: pytest --update-golden, and read {path}"
        )

    return compare


def pytest_configure(config: pytest.Config) -> None:
    """Try fewer random examples in the default run than where slow tests run too."""
    thorough = "slow" in config.option.markexpr.replace("not slow", "", 1)
    hypothesis.settings.load_profile("thorough" if thorough else "quick")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark repeated tests slow; skip tests marked ``gpu`` where there is no CUDA device."""
    mark_repeated(config, items)
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_collection_finish() -> None:
    """Look for cycles of objects less often: captures make millions of objects that live on."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def mark_repeated(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what ``tests/repeated.txt`` names.

    Raises:
        pytest.UsageError: a name is that of no test, where its whole file was collected.
    """
    lines = REPEATED.read_text(encoding="utf-8").splitlines()
    repeated = {line for line in lines if not line.startswith("#")}
    found = {item.nodeid: item for item in items}
    for name in repeated & found.keys():
        found[name].add_marker(pytest.mark.slow)
    if any("::" in argument for argument in config.args):
        return
    files = {name.split("::")[0] for name in found}
    stale = sorted(n for n in repeated - found.keys() if n.split("::")[0] in files)
    if stale:
        raise pytest.UsageError(f"{REPEATED} names tests that do not exist: {', '.join(stale)}")


@pytest.fixture(autouse=True)
def _verified_passes() -> Iterator[None]:
    """Verify what every pass of the test does to a captured graph."""
    with watching(verify_rewriting):
        yield


def verify_rewriting(item: Pass, before: Graph, after: Graph) -> None:
    """What puts a program in leaves the source as it was; the optimizers change it on purpose."""
    if item.kind in ("insert", "replace-input", "align"):
        verify(after, EraseProgram().run(before))
