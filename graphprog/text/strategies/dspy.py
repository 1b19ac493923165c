"""Load and save demonstrations in the JSON state files of DSPy programs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphprog.errors import FileError
from graphprog.spec.checks import require_texts
from graphprog.text.prompting.demonstrations import Demonstrations
from graphprog.utils.files import atomic_write
from graphprog.utils.json import parse_json, render_json

_DEMOS = "demos"
_MARK = "augmented"  # DSPy's note that a model wrote a demonstration


def load_demos(
    path: str | os.PathLike[str],
    predictor: str | None = None,
    fields: Sequence[str] | None = None,
) -> list[dict[str, str]]:
    """Read the demonstrations of a DSPy program saved as JSON (Khattab et al., arXiv:2310.03714).

    ``Demonstrations(load_demos("program.json", fields=template.fields), template)``.

    Args:
        path: file written by ``program.save("program.json")``: the state of several named
            predictors, or of one; or a list of demonstrations alone.
        predictor: name of a predictor in the file; needed if several have demonstrations.
        fields: names to keep, which every demonstration must have; None keeps all.

    Returns:
        For each demonstration, a text for every field: strings unchanged, other values as JSON.
        Null fields are left out, and so is DSPy's own field ``augmented``.

    Raises:
        FileError: no such file, invalid JSON, or another structure; names the file and the key.
        ProgramError: ``fields`` are not several texts.

    Example:
        >>> written = Path("demos.json").write_text('[{"text": "warm", "label": "good"}]')
        >>> gp.text.load_demos("demos.json", fields=("text", "label"))
        [{'text': 'warm', 'label': 'good'}]
    """
    if fields is not None:
        require_texts("", "fields", fields)
    name = os.fspath(path)
    lists = {key: _demos(name, key, held) for key, held in _predictors(name, _read(name)).items()}
    filled = [key for key, demos in lists.items() if demos]
    key = _choose(name, list(lists), filled or list(lists), predictor)
    place = f"{name}: {_place(key)}"
    return [_texts(f"{place}[{i}]", demo, fields) for i, demo in enumerate(lists[key])]


def save_demos(
    path: str | os.PathLike[str], demonstrations: Demonstrations, predictor: str | None = None
) -> Path:
    """Write demonstrations into the JSON of a DSPy program, for its ``load``.

    Everything else in the file is unchanged: other predictors, signatures and instructions. If
    there is no file, a list of demonstrations alone is written.

    Args:
        path: file written by ``program.save``, a list of demonstrations, or a new file.
        demonstrations: all of its examples are written, under the names of their fields.
        predictor: predictor whose demonstrations are replaced; needed if the file has several.

    Returns:
        The path written, with links resolved.

    Raises:
        FileError: the file has another structure, has no such predictor, or cannot be written.

    Example:
        >>> shown = gp.Demonstrations([("warm", "good")], gp.Template("{text} -> {label}"))
        >>> path = gp.text.save_demos("shown.json", shown)
        >>> gp.text.load_demos(path)
        [{'text': 'warm', 'label': 'good'}]
    """
    name = os.fspath(path)
    document = _read(name) if os.path.lexists(name) else []
    held = _predictors(name, document)
    key = _choose(name, list(held), list(held), predictor)
    demos = [dict(record) for record in demonstrations.records]
    if isinstance(held[key], dict):
        held[key][_DEMOS] = demos
    else:
        document = demos
    render_json(document, name)  # refuses invalid Unicode before anything is written
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return atomic_write(path, lambda file: file.write_text(text, "utf-8"))


def _read(name: str) -> Any:
    try:
        text = Path(name).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise FileError(
            f"{name}: cannot be read: {error}",
            ['write the file with program.save("program.json"); pickles are not loaded'],
        ) from error
    return parse_json(text, name)


def _predictors(name: str, document: Any) -> dict[str, Any]:
    """Map predictors to their states; a single state or list has the empty name."""
    if isinstance(document, list):
        return {"": document}
    states = document.items() if isinstance(document, dict) else ()
    if isinstance(dict(states).get(_DEMOS), list):
        return {"": document}
    found = {key: state for key, state in states if isinstance(state, dict) and _DEMOS in state}
    if not found:
        raise FileError(
            f"{name}: no predictor has a list {_DEMOS!r}",
            ["give the saved state of a DSPy program, or a list of demonstrations"],
        )
    return found


def _choose(name: str, known: list[str], likely: list[str], predictor: str | None) -> str:
    if predictor is None:
        if len(likely) > 1:
            raise FileError(
                f"{name}: there are several predictors: {', '.join(likely)}",
                [f"name one: predictor={likely[0]!r}"],
            )
        return likely[0]
    if predictor not in known or not predictor:
        shown = ", ".join(known) if any(known) else "one without a name; leave predictor out"
        raise FileError(f"{name}: there is no predictor {predictor!r:.60}; it has {shown}")
    return predictor


def _place(key: str) -> str:
    return f"{key}.{_DEMOS}" if key else _DEMOS


def _demos(name: str, key: str, held: Any) -> list[Any]:
    demos = held[_DEMOS] if isinstance(held, dict) else held
    if not isinstance(demos, list):
        raise FileError(f"{name}: {_place(key)} is {demos!r:.60}, not a list")
    return demos


def _texts(place: str, demo: Any, fields: Sequence[str] | None) -> dict[str, str]:
    if not isinstance(demo, Mapping):
        raise FileError(f"{place} is {demo!r:.60}, not an object of fields")
    values = {field: value for field, value in demo.items() if value is not None}
    kept = [field for field in values if field != _MARK] if fields is None else fields
    missing = [field for field in kept if field not in values]
    if missing:
        raise FileError(
            f"{place} has no {missing[0]!r:.60}; its fields are {', '.join(values)}",
            ["name its fields in the template", "remove the demonstration"],
        )
    return {
        field: value if isinstance(value := values[field], str) else render_json(value, place)
        for field in kept
    }
