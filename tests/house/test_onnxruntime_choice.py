"""Exactly one distribution of ONNX Runtime: by marker, and with a warning where it went wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from graphprog.backends.onnxruntime.distributions import installed_onnxruntimes
from tests.support.environments import ROOT, SETTINGS, run_ok

REPORT_WARNINGS = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import graphprog.backends
print(*[f"{one.category.__name__}: {one.message}" for one in caught], sep="\\n")
"""


@pytest.mark.parametrize(
    ("platform", "machine", "expected"),
    [
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("win32", "AMD64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("linux", "armv7l", "onnxruntime"),
        ("linux", "ppc64le", "onnxruntime"),
        ("win32", "ARM64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
        ("darwin", "x86_64", "onnxruntime"),
        ("freebsd14", "amd64", "onnxruntime"),
    ],
)
def test_the_markers_pick_one(platform: str, machine: str, expected: str) -> None:
    requirements = [Requirement(line) for line in SETTINGS["project"]["dependencies"]]
    environment = {"sys_platform": platform, "platform_machine": machine}
    picked = [
        one.name
        for one in requirements
        if one.name.startswith("onnxruntime")
        and (one.marker is None or one.marker.evaluate(environment))
    ]
    assert picked == [expected]


def test_this_environment_has_one() -> None:
    assert len(installed_onnxruntimes()) == 1


def install_fake(folder: Path, name: str, version: str) -> None:
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_two_distributions_are_reported_at_import(tmp_path: Path) -> None:
    install_fake(tmp_path, "onnxruntime", "9.8.7")
    install_fake(tmp_path, "onnxruntime-gpu", "9.8.6")
    warned = run_ok([sys.executable, "-c", REPORT_WARNINGS], tmp_path, tmp_path, ROOT)
    expected = "RuntimeWarning: onnxruntime 9.8.7 and onnxruntime-gpu 9.8.6 are installed together"
    assert expected in warned
    remedy = "pip uninstall --yes onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    assert remedy in warned


def test_one_distribution_is_not_reported(tmp_path: Path) -> None:
    warned = run_ok([sys.executable, "-c", REPORT_WARNINGS], tmp_path, ROOT)
    assert "installed together" not in warned
