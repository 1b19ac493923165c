"""What an ONNX file says about itself in plain words, in the ``doc_string`` of model and values."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphprog.analysis.token_inputs import TokenInputs
from graphprog.backends.onnx_model.translate import BATCH
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import ProgramError
from graphprog.ir.inputs import InputSpec, batch_axis
from graphprog.ir.interface import dtype_text

_SHOWN = 20
_SPACES = {
    "model": "as the source model takes them; the file does not normalize them",
    "unit": "which the file normalizes itself",
    "normalized": "which the file normalizes itself",
}


def describe_in_words(model: ir.Model, task: ReprogrammedModel, checked: bool = False) -> None:
    """Set the ``doc_string`` of a model, its inputs and its outputs.

    Args:
        model: the model of the task.
        task: what it computes.
        checked: whether the file checks the range of its first input.
    """
    letter = batch_axis(task.inputs)
    meanings = _meanings(task)
    given = [_input_text(task, spec, letter, meanings) for spec in task.inputs]
    values = {value.name: value for value in model.graph.inputs}
    for spec, text in zip(task.inputs, given, strict=True):
        values[spec.name].doc_string = text
    returned = _output_text(task)
    model.graph.outputs[0].doc_string = returned
    align = "no alignment" if task.spec.align.is_identity else task.spec.align.kind
    lines = [
        f"{task.base.name} with a program: {len(task.spec.manipulations)} changes, and {align}.",
        *(f"In: {spec.name}, {text}" for spec, text in zip(task.inputs, given, strict=True)),
        f"Out: {model.graph.outputs[0].name}, {returned}",
    ]
    if checked:
        lines.append("Rows whose first input is outside of its range come out as NaN.")
    model.doc_string = "\n".join(lines)


def _meanings(task: ReprogrammedModel) -> dict[str, str]:
    """Return what is known of the integer inputs, by name."""
    try:
        tokens = TokenInputs.of(task.base)
    except ProgramError:  # not a model of texts
        return {}
    found = {tokens.ids: f"token ids from 0 to {tokens.vocabulary - 1}"}
    return found | ({tokens.mask: "1 for a token, 0 for padding"} if tokens.mask else {})


def _input_text(
    task: ReprogrammedModel, spec: InputSpec, letter: str | None, meanings: Mapping[str, str]
) -> str:
    sizes = [BATCH if size == letter else str(size) for size in spec.shape]
    text = f"{dtype_text(spec.dtype)}[{', '.join(sizes)}]"
    if not spec.dtype.is_floating_point:
        return f"{text}: {meanings.get(spec.name, 'integers')}."
    contract = task.spec.contract
    if spec is not task.inputs[0] or contract.range is None:
        return f"{text}: finite numbers."
    low, high = contract.range
    return f"{text}: numbers in [{low:g}, {high:g}], {_SPACES[contract.space]}."


def _output_text(task: ReprogrammedModel) -> str:
    if task.spec.align.is_identity:
        return "what the source model returns."
    labels = task.spec.contract.labels
    if not labels:
        return "one row of scores per example; the largest is the predicted class."
    more = f", and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    names = ", ".join(f"{number} {name}" for number, name in enumerate(labels[:_SHOWN]))
    return f"one score per class and example; the largest is the predicted class: {names}{more}."
