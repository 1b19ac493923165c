from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import safetensors.torch
import torch

from graphprog.errors import FileError
from graphprog.io import artifact
from graphprog.utils.files import atomic_write
from graphprog.utils.tensor_files import write_tensors
from tests.support.environments import full_disk
from tests.support.program_files import DOCUMENT, some_tensors


def test_a_failing_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, fail)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    artifact.write(path, some_tensors(), DOCUMENT)
    old = path.read_bytes()
    with full_disk(100_000), pytest.raises(FileError) as caught:
        artifact.write(path, {"program.a": torch.zeros(100_000)}, DOCUMENT)
    assert os.strerror(errno.EFBIG) in str(caught.value)
    assert "free space" in str(caught.value)
    assert path.read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_tensors_on_a_full_disk(tmp_path: Path) -> None:
    """As checkpoints, recordings and PEFT folders are written."""
    write_tensors(tmp_path / "a.safetensors", {"x": torch.ones(3)})
    with full_disk(1_000), pytest.raises(FileError, match=r"a\.safetensors: cannot be written"):
        write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(100_000)})
    assert safetensors.torch.load_file(tmp_path / "a.safetensors")["x"].sum() == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_links_are_followed_and_permissions_kept(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    real, link = tmp_path / "runs" / "a.txt", tmp_path / "latest.txt"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    assert atomic_write(link, lambda temporary: temporary.write_text("new")) == real
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    atomic_write(tmp_path / "a", lambda temporary: temporary.write_text("new"))
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


KILLED_IN_THE_MIDDLE = """
    import sys, time
    from graphprog.utils.files import atomic_write

    def writer(temporary):
        temporary.write_bytes(b"half")
        print("half written", flush=True)
        time.sleep(60)

    atomic_write(sys.argv[1], writer)
"""


def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    artifact.write(path, some_tensors(), DOCUMENT)
    child = start(KILLED_IN_THE_MIDDLE, path)
    assert child.stdout is not None
    assert child.stdout.readline() == "half written\n"
    artifact.write(tmp_path / "b.safetensors", {}, {})
    assert len(list(tmp_path.glob(".a.*"))) == 1, "the file of a process that lives is left alone"
    child.kill()
    child.communicate()
    assert artifact.read(path)[1]["labels"] == DOCUMENT["labels"]
    (tmp_path / ".a.notes.tmp").touch()
    artifact.write(path, {}, {"labels": ["new"]})
    assert artifact.read(path)[1]["labels"] == ["new"]
    left = sorted(entry.name for entry in tmp_path.iterdir())
    assert left == [".a.notes.tmp", "a.safetensors", "b.safetensors"]


# Each child writes two programs in turn without end, and is killed after another delay.
KILLED_ANYWHERE = """
    import os, signal, sys, time, torch
    from graphprog.io import artifact

    torch.set_num_threads(1)
    path = sys.argv[1]
    for attempt in range(12):
        child = os.fork()
        if child == 0:
            while True:
                for value in (1.0, 2.0):
                    tensors = {"program.a": torch.full((200_000,), value)}
                    artifact.write(path, tensors, {"value": value})
        time.sleep(0.004 + 0.0023 * attempt)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        tensors, document = artifact.read(path)
        assert (tensors["program.a"] == document["value"]).all()
    print("whole every time")
"""


@pytest.mark.slow
def test_writers_killed_anywhere_leave_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    artifact.write(path, {"program.a": torch.zeros(5)}, {"value": 0.0})
    output, errors = start(KILLED_ANYWHERE, path).communicate(timeout=60)
    assert output == "whole every time\n", errors


def start(script: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
