"""Files to serve, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphprog as gp
from tests.models.served_tasks import image_files


@pytest.fixture(scope="session")
def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, gp.ReprogrammedModel]]:
    """A folder with ``model.onnx`` and two programs, and the tasks in PyTorch."""
    folder = tmp_path_factory.mktemp("served")
    return folder, image_files(folder)
