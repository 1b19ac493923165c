"""The site builds without a warning, and its pages hold what they promise."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import graphprog as gp
from tests.support.environments import ROOT

LOADED = re.compile(r"<(?:script|img|link)\b[^>]*\b(?:src|href)=\"?(https?://[^\s\">]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; its notebooks are not run."""
    folder = tmp_path_factory.mktemp("site")
    settings = {"GRAPHPROG_RUN_NOTEBOOKS": "false", "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    environment = {**os.environ, **settings}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_page_is_in_the_site_and_in_the_list_for_programs(site: Path) -> None:
    pages = sorted(path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md"))
    listed = (site / "llms.txt").read_text(encoding="utf-8")
    for page in pages:
        built = page.with_suffix(".html").as_posix()
        assert (site / built).is_file()
        assert f"]({built}): " in listed
    assert len(list((site / "tutorials").glob("*.html"))) == 4
    for name in ("architecture", "contributing", "changelog"):
        assert (site / f"{name}.html").is_file()


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    reference = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    names = {
        f"gp.{name}"
        for name in gp.__all__
        if inspect.isclass(getattr(gp, name)) or inspect.isfunction(getattr(gp, name))
    }
    names |= {f"gp.methods.{name}" for name in gp.methods.__all__ if name.islower()}
    shown = set(re.findall(r"[^\w.](gp\.[\w.]+)[^\w.]", reference))
    assert sorted(names - shown) == []


def test_roles_and_examples_of_docstrings_are_read(site: Path) -> None:
    page = (site / "api" / "training.html").read_text(encoding="utf-8")
    assert ":func:" not in page
    assert '<span class="gp">&gt;&gt;&gt; </span>' in page


def test_nothing_is_loaded_from_another_server(site: Path) -> None:
    found = {
        address
        for path in site.rglob("*.html")
        for address in LOADED.findall(path.read_text(encoding="utf-8"))
    }
    assert found == set()
