from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard

from graphprog.errors import FileError
from graphprog.io import artifact
from graphprog.io.card import MARK, write_card
from graphprog.io.hub import pull, push
from tests.support.servers.hub_server import COMMIT, TOKEN, HubServer

DOCUMENT = {
    "program": {"kind": "program", "manipulations": [{"kind": "additive", "at": "input"}]},
    "pipeline": "insert",
    "source": {"text": "a" * 64, "weights": "b" * 64},
    "labels": [f"digit {number}" for number in range(30)],
    "training": {"accuracy": {"validation": 0.951234567, "test": 0.95}, "losses": [1.0, 0.5]},
}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "digits.safetensors"
    artifact.write(path, {"program.border.value": torch.arange(6.0)}, DOCUMENT)
    return path


# A folder


@pytest.mark.parametrize("form", ["path", "name of an existing folder", "file address"])
def test_a_folder_serves_as_a_hub(program: Path, tmp_path: Path, form: str) -> None:
    folder = tmp_path / "shared" / "my programs"
    if form == "name of an existing folder":
        folder.mkdir(parents=True)
    place: Any = {"path": folder, "file address": folder.as_uri()}.get(form, str(folder))
    assert push(program, place) == str(folder / "program.safetensors")
    assert {entry.name for entry in folder.iterdir()} == {"program.safetensors", "README.md"}
    pulled = pull(place)
    assert pulled.read_bytes() == program.read_bytes()
    assert artifact.read(pulled)[1]["source"] == DOCUMENT["source"]


def test_a_folder_holds_several_programs(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    push(program, folder, filename="tasks/a.safetensors")
    push(program, folder, filename="b.safetensors")
    assert pull(folder, "tasks/a.safetensors").read_bytes() == program.read_bytes()
    assert pull(folder, "b.safetensors").parent == folder


def test_a_readme_of_ones_own_is_kept(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    push(program, folder)
    card = folder / "README.md"
    card.write_text(card.read_text("utf-8").replace("# `program", "# Changed `program"), "utf-8")
    push(program, folder)
    assert "# Changed" not in card.read_text("utf-8")
    card.write_text("my own", "utf-8")
    push(program, folder)
    assert card.read_text("utf-8") == "my own"


def test_an_unsound_file_is_neither_pushed_nor_pulled(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    push(program, folder)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(program.read_bytes()[:-1])
    with pytest.raises(FileError, match="damaged"):
        push(broken, folder)
    assert pull(folder).read_bytes() == program.read_bytes()
    pull(folder).write_bytes(broken.read_bytes())
    with pytest.raises(FileError, match="damaged"):
        pull(folder)


def test_places_that_cannot_be_used(program: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        pull(tmp_path / "absent")
    with pytest.raises(FileError, match="cannot be used"):
        push(program, program)
    with pytest.raises(FileError, match="no revisions"):
        push(program, tmp_path, revision="main")
    with pytest.raises(FileError, match="privacy"):
        push(program, tmp_path, private=True)
    with pytest.raises(FileError, match="no revisions"):
        pull(tmp_path, revision="main")
    with pytest.raises(FileError, match="another machine"):
        push(program, "file://server/folder")
    assert {entry.name for entry in tmp_path.iterdir()} == {program.name}


@pytest.mark.parametrize(
    "filename",
    ["../a.safetensors", "/a.safetensors", "a\\b.safetensors", "c:a.safetensors", "a", ""],
)
def test_names_that_leave_the_folder(program: Path, tmp_path: Path, filename: str) -> None:
    with pytest.raises(FileError, match="filename"):
        push(program, tmp_path / "shared", filename=filename)
    with pytest.raises(FileError, match="filename"):
        pull(tmp_path, filename)
    assert {entry.name for entry in tmp_path.iterdir()} == {program.name}


# A hub, by the library's own requests


def test_push_and_pull_through_the_hub(program: Path, hub: HubServer, tmp_path: Path) -> None:
    url = push(program, "me/digits", token=TOKEN, private=True)
    assert url == f"{hub.address}/me/digits/commit/{COMMIT}"
    assert hub.private == {"me/digits"}
    assert hub.commits == [("main", ["README.md", "program.safetensors"])]
    assert MARK in hub.repositories["me/digits"]["README.md"].decode()
    pulled = pull("me/digits", cache_dir=tmp_path / "kept")
    assert pulled.is_relative_to(tmp_path / "kept")
    assert pulled.read_bytes() == program.read_bytes()


def test_pushing_again_updates_program_and_readme(program: Path, hub: HubServer) -> None:
    push(program, "me/digits", token=TOKEN)
    artifact.write(program, {"program.a": torch.ones(2)}, {**DOCUMENT, "labels": ["new"]})
    push(program, "me/digits", token=TOKEN)
    assert "1: `new`" in hub.repositories["me/digits"]["README.md"].decode()
    assert artifact.read(pull("me/digits"))[1]["labels"] == ["new"]


def test_a_readme_of_ones_own_is_kept_on_the_hub(program: Path, hub: HubServer) -> None:
    hub.repositories["me/digits"] = {"README.md": b"my own"}
    push(program, "me/digits", token=TOKEN)
    assert hub.commits == [("main", ["program.safetensors"])]
    assert hub.repositories["me/digits"]["README.md"] == b"my own"


def test_a_branch_of_the_hub(program: Path, hub: HubServer) -> None:
    hub.branches.add("trial")
    push(program, "me/digits", token=TOKEN, revision="trial")
    assert hub.commits[0][0] == "trial"
    assert pull("me/digits", revision="trial").read_bytes() == program.read_bytes()


def test_refusals_of_the_hub_say_what_to_do(program: Path, hub: HubServer) -> None:
    with pytest.raises(FileError, match=r"me/digits.*\n(.*\n)*.*hf auth login"):
        push(program, "me/digits")
    assert hub.repositories == {}
    with pytest.raises(FileError, match=r"(?s)me/absent.*check owner and name"):
        pull("me/absent")
    push(program, "me/digits", token=TOKEN)
    with pytest.raises(FileError, match=r"(?s)other.safetensors.*check filename="):
        pull("me/digits", "other.safetensors")
    with pytest.raises(FileError, match=r"(?s)me/digits.*create the branch first"):
        pull("me/digits", revision="trial")
    with pytest.raises(FileError, match=r"(?s)me/digits.*create the branch first"):
        push(program, "me/digits", token=TOKEN, revision="trial")
    with pytest.raises(FileError, match=r"(?s)a/b/c.*pass a folder as a Path"):
        pull("a/b/c")


def test_a_file_of_something_else_is_not_accepted_from_the_hub(hub: HubServer) -> None:
    hub.repositories["me/digits"] = {"program.safetensors": b"\x80\x04pickle"}
    with pytest.raises(FileError, match=r"program\.safetensors: not a graphprog program"):
        pull("me/digits")


def test_without_a_network_what_was_pulled_before_serves(
    program: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(program, "me/digits", token=TOKEN)
    pulled = pull("me/digits")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert pull("me/digits") == pulled
    with pytest.raises(FileError, match=r"(?s)me/other.*unset HF_HUB_OFFLINE"):
        pull("me/other")
    with pytest.raises(FileError, match=r"(?s)me/digits.*push to a folder instead"):
        push(program, "me/digits", token=TOKEN)


# The card


def test_the_card_says_what_the_program_is() -> None:
    card = ModelCard(write_card(DOCUMENT, "me/digits", "program.safetensors"))
    assert card.data.get("library_name") == "graphprog"
    assert card.data.get("tags") == ["graphprog", "model-reprogramming"]
    for said in (
        'pull("me/digits", "program.safetensors")',
        "| `weights` | `" + "b" * 64 + "` |",
        "| `accuracy.validation` | `0.951235` |",
        "30: `digit 0`",
        "`digit 19` and 10 more",
        '"kind": "additive"',
    ):
        assert said in card.text, said
    assert "losses" not in card.text


def test_what_a_file_says_does_not_become_markup() -> None:
    hostile = "x`\n\n# Title <script> | ``` ~~~"
    document = {"program": "````\n<script>", "labels": [hostile], "source": {hostile: hostile}}
    lines = write_card(document, "me/digits", "program.safetensors").splitlines()
    titles = [line for line in lines if line.startswith("#")]
    assert [title.split()[0] for title in titles] == ["#", "##", "##", "##", "##", "##"]
    assert all("`x # Title <script>" in line for line in lines if "Title" in line)
    assert write_card({}, "me/digits", "a.safetensors").count("Not recorded.") == 3
