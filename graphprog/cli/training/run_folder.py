"""The folder of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graphprog.cli.config.mistakes import mistakes_of
from graphprog.cli.config.schema import Configuration
from graphprog.errors import FileError
from graphprog.utils.files import atomic_write, make_folder

RUN, PROGRAM, HISTORY, CHECKPOINT = "run.json", "program.safetensors", "history.json", "checkpoint"

_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def is_main_process() -> bool:
    """Whether this is the process that writes and prints, of those that a launcher started."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


class RunFolder:
    """A folder with a run: ``run.json``, ``program.safetensors``, ``history.json``, checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def program(self) -> Path:
        """The trained program."""
        return self.path / PROGRAM

    @property
    def checkpoint(self) -> Path:
        """The folder of the checkpoint."""
        return self.path / CHECKPOINT

    @property
    def has_begun(self) -> bool:
        """Whether a run was started here."""
        return (self.path / RUN).is_file()

    def begin(self, configuration: Configuration, known: Mapping[str, Any]) -> None:
        """Write what the run is.

        Args:
            configuration: as it is used, with all defaults.
            known: what the training data determine: classes, length of audio.
        """
        make_folder(self.path)
        document = {"configuration": configuration.model_dump(exclude_none=True), **known}
        self._write(RUN, document)

    def end(self, history: Any) -> None:
        """Write the history of the finished run."""
        self._write(HISTORY, history.to_json())

    def read(self) -> tuple[Configuration, dict[str, Any]]:
        """Return the configuration, and what the training data determined.

        Raises:
            FileError: this is not the folder of a run.
        """
        path = self.path / RUN
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            given = document.pop("configuration")
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise FileError(
                f"{self.path}: not the folder of a run: {error}", ["graphprog train CONFIG.toml"]
            ) from error
        try:
            return Configuration.model_validate(given), document
        except ValidationError as error:
            first = mistakes_of(error, given)[0]
            raise FileError(f"{path}: {first.key}: {first.text}") from error

    def require_program(self) -> Path:
        """Return the trained program.

        Raises:
            FileError: the run is not finished.
        """
        if not self.program.is_file():
            raise FileError(
                f"{self.path}: the run is not finished", ["graphprog train CONFIG.toml --resume"]
            )
        return self.program

    def _write(self, name: str, document: Any) -> None:
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        atomic_write(self.path / name, lambda file: file.write_text(text, encoding="utf-8"))
