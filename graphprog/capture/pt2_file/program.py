"""The program of a ``.pt2`` file: a JSON document in which every entry has a rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from graphprog.capture.pt2_file.sizes import SYMBOL, checked_size
from graphprog.capture.pt2_file.structures import checked_structure, keyword_names
from graphprog.errors import FileError
from graphprog.ir.graph_file.operators import is_number_function, operator_of
from graphprog.ir.graph_file.read import WEIGHT_PATH
from graphprog.ir.graph_file.sizes import check_dimensions

_LARGEST = 2**63
_REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
_KEPT = ("stack_trace", "nn_module_stack")
"""What is known of an operation beside its value; the rest is not read."""

_NUMBER_ARGUMENTS = {"as_int", "as_float", "as_bool", "as_sym_int", "as_sym_float", "as_sym_bool"}


def checked_program(document: Any) -> dict[str, Any]:
    """Return a program with only what a graph is made of.

    Raises:
        FileError: it has an entry without a rule, or one that breaks its rule.
    """
    found = checked(document, "the program")
    if not isinstance(found, dict) or not isinstance(found.get("graph_module"), dict):
        raise FileError("its program has no graph")
    for graph in _graphs(found):
        _check_number_functions(graph)
    found["guards_code"] = []
    return found


def checked(value: Any, place: str) -> Any:
    """Return a part of a document, with every entry below it checked by the rule of its name."""
    if isinstance(value, dict):
        return {key: _entry(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [checked(item, place) for item in value]
    if isinstance(value, str):
        raise FileError(f"{place} is the text {value!r:.80}, and should be no text")
    return _number(value, place)


def _entry(key: str, value: Any) -> Any:
    if value is None:
        return None
    if key in _CONTAINERS:
        return checked(value, key)
    if key not in _RULES:
        raise FileError(f"it has an entry {key!r:.80}, which no graph of tensors needs")
    return _RULES[key](value, key)


def _number(value: Any, place: str) -> Any:
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise FileError(f"{place}: the number {value!r:.40} is larger than any size")
    return value


def _float(value: Any, place: str) -> Any:
    if isinstance(value, str) and value not in ("Infinity", "-Infinity", "NaN"):
        raise FileError(f"{place}: {value!r:.40} is not a number")
    return _number(value, place)


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise FileError(f"{place}: {value!r:.80} is not a text")
    return value


def _identifier(value: Any, place: str) -> str:
    """Check a name, which becomes one in Python code; arguments by position have an empty one."""
    if not isinstance(value, str) or (value and not value.isidentifier()):
        raise FileError(f"{place}: {value!r:.80} is not a name")
    return value


def _path(value: Any, place: str) -> str:
    if not isinstance(value, str) or not WEIGHT_PATH.fullmatch(value):
        raise FileError(f"{place}: {value!r:.80} is not the path of a weight")
    return value


def _matching(pattern: str) -> Callable[[Any, str], str]:
    def check(value: Any, place: str) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise FileError(f"{place}: {value!r:.80} is not one")
        return value

    return check


def _target(value: Any, place: str) -> str:
    """Check the name of an operation."""
    text = _text(value, place)
    *module, name = text.split(".")
    if module == ["torch", "ops", "higher_order"]:
        if name not in _REGIONS:
            raise FileError(f"the operation {text!r:.80} runs code that a graph cannot hold")
    else:
        try:
            operator_of(operator_name(text), in_place=True)
        except FileError as error:
            raise FileError(error.what) from error
    return text


def operator_name(target: str) -> str:
    """Return the name of an operation as graph files have it."""
    parts = target.split(".")
    if len(parts) == 5 and parts[:2] == ["torch", "ops"]:
        return f"{parts[2]}::{parts[3]}.{parts[4]}"
    return target.removeprefix("_")


def _metadata(value: Any, place: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise FileError(f"{place} is not a list of entries")
    return {name: _text(value[name], name) for name in _KEPT if name in value}


def _texts(rule: Callable[[Any, str], Any]) -> Callable[[Any, str], list[Any]]:
    def check(value: Any, place: str) -> list[Any]:
        if not isinstance(value, list):
            raise FileError(f"{place} is not a list")
        return [_texts(rule)(x, place) if isinstance(x, list) else rule(x, place) for x in value]

    return check


def _named(
    name: Callable[[Any, str], str], rule: Callable[[Any, str], Any] = checked
) -> Callable[[Any, str], dict[str, Any]]:
    def check(value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise FileError(f"{place} has no names")
        return {name(key, place): rule(item, place) for key, item in value.items()}

    return check


def _shape(value: Any, place: str) -> Any:
    if isinstance(value, list):
        check_dimensions([1] * len(value))
    return checked(value, place)


def _empty(value: Any, place: str) -> Any:
    if value:
        raise FileError(f"{place} holds objects of other classes than tensors")
    return value


def _refused(value: Any, place: str) -> Any:
    raise FileError(f"it has an entry {place!r}: {value!r:.80} is not a tensor or a number")


def _calls(value: Any, place: str) -> list[dict[str, Any]]:
    """Return the call of the whole model; those of its parts are not read."""
    entries = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    found = next((one.get("signature") for one in entries if one.get("fqn") == ""), None)
    if not isinstance(found, dict):
        raise FileError("it does not say how its model is called")
    arguments = checked_structure(found.get("in_spec"), "in_spec", results=False)
    names = _texts(_identifier)(found.get("forward_arg_names") or [], "forward_arg_names")
    _texts(_identifier)(keyword_names(arguments), "in_spec")
    signature = {
        "inputs": [],
        "outputs": [],
        "in_spec": arguments,
        "out_spec": checked_structure(found.get("out_spec"), "out_spec", results=True),
        "forward_arg_names": names or None,
    }
    return [{"fqn": "", "signature": signature}]


_CONTAINERS = frozenset(
    (
        *("graph_module", "graph", "signature", "schema_version", "inputs", "outputs", "nodes"),
        *("arg", "kind", "value", "hint", "storage_offset", "tensor_meta"),
        *("input_specs", "output_specs", "user_input", "user_output", "parameter", "buffer"),
        *("tensor_constant", "constant_input", "buffer_mutation", "user_input_mutation"),
        *("as_none", "as_bool", "as_bools", "as_int", "as_ints", "as_int_lists", "as_expr"),
        *("as_tensor", "as_tensors", "as_nested_tensors", "as_optional_tensor"),
        *("as_optional_tensors", "as_sym_int", "as_sym_ints", "as_sym_bool", "as_sym_bools"),
        *("as_sym_float", "as_sym_floats", "as_graph", "as_complex", "as_scalar_type"),
        *("as_memory_format", "as_layout", "as_device", "dtype", "requires_grad", "device"),
        *("layout", "index", "persistent", "is_single_tensor_return", "major", "minor"),
        *("is_hop_single_tensor_return", "min_val", "max_val", "is_param", "use_pickle"),
    )
)
"""Entries that hold others, or numbers."""

_RULES: dict[str, Callable[[Any, str], Any]] = {
    "target": _target,
    "name": _identifier,
    "as_name": _identifier,
    "user_input_name": _identifier,
    "parameter_name": _path,
    "buffer_name": _path,
    "tensor_constant_name": _path,
    "sizes": _shape,
    "strides": _shape,
    "expr_str": lambda value, place: checked_size(value),
    "metadata": _metadata,
    "as_string": _text,
    "as_strings": _texts(_text),
    "as_float": _float,
    "real": _float,
    "imag": _float,
    "as_floats": _texts(_float),
    "as_float_lists": _texts(_float),
    "as_string_to_argument": _named(_identifier),
    "tensor_values": _named(_identifier),
    "sym_int_values": _named(_identifier),
    "sym_bool_values": _named(_identifier),
    "sym_float_values": _named(_identifier),
    "range_constraints": _named(_matching(SYMBOL.pattern)),
    "opset_version": _named(_matching(r"\w{1,40}")),
    "type": _matching("[a-z]{1,20}"),
    "path_name": _matching("(weight|tensor)_[0-9]{1,7}"),
    "torch_version": _matching(r"[\w.+<=\-]{1,40}"),
    "verifiers": _texts(_matching(r"[A-Z_]{1,40}")),
    "module_call_graph": _calls,
    "custom_obj_values": _empty,
    "treespec_namedtuple_fields": _empty,
    "custom_obj": _refused,
    "token": _refused,
    "as_custom_obj": _refused,
    "as_operator": _refused,
    "guards_code": _texts(_text),
}
"""What every other entry may hold."""


def _graphs(value: Any) -> Iterator[dict[str, Any]]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if isinstance(item.get("nodes"), list):
                yield item
            pending += item.values()
        elif isinstance(item, list):
            pending += item


def _check_number_functions(graph: dict[str, Any]) -> None:
    """Check that Python's arithmetic is given numbers: of lists and texts it makes huge ones."""
    names = {
        name
        for kind in ("sym_int_values", "sym_float_values", "sym_bool_values")
        for name in graph.get(kind) or ()
    }
    for node in graph["nodes"]:
        target = node.get("target") if isinstance(node, dict) else None
        if not isinstance(target, str):
            raise FileError("an operation has no name")
        known = operator_name(target)
        if "::" in known or "higher_order" in known or not is_number_function(operator_of(known)):
            continue
        for entry in node.get("inputs") or ():
            ((kind, held),) = entry["arg"].items()
            name = held.get("as_name") if isinstance(held, dict) else None
            if kind not in _NUMBER_ARGUMENTS or (name is not None and name not in names):
                raise FileError(f"the operation {target!r} on numbers is given something else")
