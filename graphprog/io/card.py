"""The README of a published program, made from the document in the program's file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import ModelCardData

MARK = "<!-- Written by graphprog. Remove this line to keep a text of your own. -->"
_MAX_LABELS = 20
_INTRODUCTION = (
    "Trained with graphprog. This file holds only the program, not the source model. It runs"
    " in the model that it was trained on, whose weights do not change."
)


def write_card(document: Mapping[str, Any], repo_id: str, filename: str) -> str:
    """Write a Markdown card of a program: its source model, labels, training and usage.

    Args:
        document: the JSON document of the saved program.
        repo_id: the repository that it is published in.
        filename: name of the program's file next to the card.

    Returns:
        The text, beginning with the metadata block of the Hugging Face Hub.
    """
    data = ModelCardData(library_name="graphprog", tags=["graphprog", "model-reprogramming"])
    source = document.get("source")
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n{MARK}",
        f"# {_line(filename)}: a program for a frozen model",
        _INTRODUCTION,
        "## Use\n\n" + _fence(_usage(repo_id, filename), "python"),
        "## Source model\n\nLoading on any other model is refused.\n\n" + _table(source),
        "## Labels\n\n" + _labels(document.get("labels")),
        "## Training\n\n" + _table(document.get("training")),
        "## Program\n\n" + _fence(_pretty(document.get("program")), "json"),
    ]
    return "\n\n".join(parts) + "\n"


def _usage(repo_id: str, filename: str) -> str:
    return (
        "import graphprog as gp\n\n"
        "graph = gp.capture(model, (images,))  # the source model, and an example batch for it\n"
        f"task = gp.load(gp.pull({json.dumps(repo_id)}, {json.dumps(filename)}), graph)"
    )


def _table(values: Any) -> str:
    rows = [f"| {_line(name)} | {_line(value)} |" for name, value in _scalars(values, "")]
    return "\n".join(["| | |", "|---|---|", *rows]) if rows else "Not recorded."


def _scalars(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted names and scalar values; lists (one value per epoch) are left out."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _scalars(item, f"{name}.{key}" if name else key)
    elif value is not None and not isinstance(value, list):
        yield name, f"{value:.6g}" if isinstance(value, float) else value


def _labels(labels: Any) -> str:
    if not isinstance(labels, list) or not labels:
        return "Not recorded."
    shown = ", ".join(_line(label) for label in labels[:_MAX_LABELS])
    more = len(labels) - _MAX_LABELS
    return f"{len(labels)}: {shown}" + (f" and {more} more" if more > 0 else "")


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _line(value: Any) -> str:
    """Return a value as inline code, so that content of a file cannot become markup."""
    return "`" + re.sub(r"[`|\s]+", " ", str(value))[:200] + "`"


def _fence(text: str, language: str) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}{language}\n{text}\n{marks}"
