"""Every snippet of the documentation runs, from top to bottom of its page."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import graphprog as gp
from graphprog import errors
from graphprog.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
TOP = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
PATH = re.compile(r"`((?:graphprog|passes|backends|tests|tools|docs|examples|benchmarks)/[\w/.]+)`")
NAME = re.compile(r"(?<![\w.])gp((?:\.[A-Za-z_]\w*)+)")
SHELL = re.compile(r"^(?: {4})?graphprog (.+)$", re.MULTILINE)
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "__main__"}
    for match in SNIPPET.finditer(text):
        line = text[: match.start()].count("\n") + 1
        code = compile("\n" * line + match.group(1), str(page), "exec")
        exec(code, names)


@pytest.mark.slow  # real weights: half a minute to a minute each
@pytest.mark.parametrize("notebook", TUTORIALS, ids=lambda notebook: notebook.stem)
def test_tutorials_run(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = compile(notebook.read_text(encoding="utf-8"), str(notebook), "exec")
    exec(code, {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [path for path in PATH.findall(text) if not (ROOT / path).exists()] == []
    for names in sorted(set(NAME.findall(text))):
        value: object = gp
        for name in names.split(".")[1:]:
            assert hasattr(value, name), f"gp{names}"
            value = getattr(value, name)


def test_shell_lines_name_commands_and_options() -> None:
    commands: Any = typer.main.get_command(app)
    lines = [
        shlex.split(line, comments=True)
        for page in PAGES
        for line in SHELL.findall(page.read_text(encoding="utf-8"))
    ]
    assert len(lines) > 10
    for name, *arguments in lines:
        command = commands.commands[name]
        command.make_parser(command.context_class(command)).parse_args(arguments)


def test_every_error_is_in_the_index() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    classes = [
        name
        for name, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, errors.GraphprogError)
    ]
    assert len(classes) > 5
    assert [name for name in classes if f"`{name}`" not in text and name not in text] == []
