"""The settings in pyproject.toml against the tree, the pins, and the Makefile."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.environments import ROOT, SETTINGS, run, source_modules


def direct_requirements() -> list[Requirement]:
    project = SETTINGS["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [Requirement(line) for group in groups for line in group]
    return [one for one in found if one.name != SETTINGS["project"]["name"]]


def test_the_list_of_packages_equals_the_tree() -> None:
    packages = {
        name if file.name == "__init__.py" else name.rpartition(".")[0]
        for name, file in source_modules().items()
    }
    assert sorted(packages) == SETTINGS["tool"]["setuptools"]["packages"]


def test_every_package_has_an_init_file() -> None:
    files = source_modules()
    for package in SETTINGS["tool"]["setuptools"]["packages"]:
        assert files[package].name == "__init__.py", package


def test_every_direct_requirement_is_pinned_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {}
    for pin in pins:
        (only,) = pin.specifier
        assert only.operator == "==", pin
        versions[canonicalize_name(pin.name)] = only.version
    wanted = direct_requirements()
    assert sorted(versions) == sorted({canonicalize_name(one.name) for one in wanted})
    for one in wanted:
        assert one.specifier.contains(versions[canonicalize_name(one.name)]), one


def test_requirements_have_no_upper_bounds() -> None:
    operators = {part.operator for one in direct_requirements() for part in one.specifier}
    assert operators == {">="}


@pytest.mark.parametrize("folder", ["passes", "backends"])
def test_a_mapped_folder_refuses_its_bare_name(folder: str) -> None:
    done = run([sys.executable, "-c", f"import {folder}"], ROOT)
    assert done.returncode == 1
    assert f"Try: import graphprog.{folder}" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("ImportError: ")


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("goal", ["demo", "test"])
@pytest.mark.parametrize("state", ["Python 3.9.2", "absent"])
def test_make_explains_what_python_it_needs(goal: str, state: str, tmp_path: Path) -> None:
    python = tmp_path / "python3"
    if state != "absent":
        python.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{state}" && exit\nexit 1\n')
        python.chmod(0o755)
    done = run(["make", goal, f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"], ROOT)
    assert done.returncode != 0
    assert f"graphprog needs Python 3.11 or newer; '{python}' is {state}." in done.stderr
    assert f"Try: make PYTHON=python3.11 {goal}" in done.stderr
    assert not (tmp_path / "venv").exists()
