"""Reading a graph from a file; nothing in it is executed."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from graphprog.errors import FileError, GraphprogError
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.graph_file.arguments import argument_of, structure_of
from graphprog.ir.graph_file.container import Container, open_container
from graphprog.ir.graph_file.operators import is_number_function, operator_of
from graphprog.ir.graph_file.sizes import Sizes, check_dimensions, check_number
from graphprog.ir.graph_file.write import FORMAT, VERSION, memory_order, text_hash
from graphprog.ir.hints import checked_hints
from graphprog.ir.interface import Edge
from graphprog.ir.records import Site
from graphprog.ir.weights import SourceTensors, Weights
from graphprog.utils.files import require_path

WEIGHT_PATH = re.compile(r"[\w\-/:@+ ]+(\.[\w\-/:@+ ]+)*")

Loaded = TypeVar("Loaded")


def read_graph(
    path: str | os.PathLike[str], build: Callable[..., Loaded], device: torch.device
) -> Loaded:
    """Read a file that :func:`write_graph` wrote; see :meth:`Graph.load`.

    Args:
        path: path of the file.
        build: makes a graph from its fields.
        device: device for the weights.
    """
    require_path(path)
    try:
        with open_container(path, device) as file:
            _check_format(file.document)
            graph = build(**_fields(file))
            _check_text(str(graph.bare_text), file.document)  # type: ignore[attr-defined]
            return graph
    except GraphprogError as error:
        raise FileError(f"{os.fspath(path)}: {error.what}", error.remedies) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise FileError(
            f"{os.fspath(path)}: its description is damaged: {type(error).__name__}: {error}",
            ["graph.save(path) again, or get the file again"],
        ) from error


def _check_format(document: Mapping[str, Any]) -> None:
    form = document["format"]
    if form["name"] != FORMAT:
        raise FileError("not a graph file")
    if form["version"] != VERSION:
        raise FileError(
            f"layout {form['version']!r:.20} of graph files, and this version reads {VERSION}",
            ["update graphprog", "capture the model again, and graph.save(path)"],
        )


def _check_text(text: str, document: Mapping[str, Any]) -> None:
    if text_hash(text) == document["text"]:
        return
    written, here = str(document["torch"]), torch.__version__
    if written != here:
        raise FileError(
            f"its operations compute other shapes in PyTorch {here} than in {written:.40}, with "
            "which it was written",
            [f"pip install torch=={written.partition('+')[0]:.40}", "capture the model again"],
        )
    raise FileError(
        "its operations are not those that were saved: the file was changed",
        ["graph.save(path) again, or get the file again"],
    )


def _fields(file: Container) -> dict[str, Any]:
    document = file.document
    sizes = Sizes(document["sizes"])
    source = _source(file)
    code, nodes = _code(document, sizes, source)
    call, results = document["call"], document["results"]
    return {
        "name": str(document["name"]),
        "code": code,
        "weights": Weights(source),
        "call_spec": _call_spec(call, [str(entry["name"]) for entry in document["inputs"]]),
        "out_spec": _out_spec(results, len(document["returned"])),
        "outputs": tuple(map(str, results["names"])),
        "symbols": sizes.letters,
        "sites": _sites(document["interfaces"], nodes),
        "aliases": _aliases(document),
        "choices": {str(a): tuple(map(str, keys)) for a, keys in document["choices"].items()},
        "hints": checked_hints(document["hints"]),
    }


def _source(file: Container) -> SourceTensors:
    """Read the tree of weights; each tensor is read once, tied ones are one object."""
    root = SourceTensors()
    shared: dict[tuple[str, bool], torch.Tensor] = {}
    for path, entry in file.document["weights"].items():
        if not WEIGHT_PATH.fullmatch(path):
            raise FileError(f"{path!r:.80} is not the path of a weight")
        key = (str(entry["tensor"]), bool(entry["parameter"]))
        if key not in shared:
            value = _tensor(file, path, entry)
            shared[key] = nn.Parameter(value, requires_grad=False) if key[1] else value
        *parents, name = path.split(".")
        holder: nn.Module = root
        for parent in parents:
            if parent not in holder._modules:
                holder.add_module(parent, nn.Module())
            holder = getattr(holder, parent)
        if isinstance(shared[key], nn.Parameter):
            holder.register_parameter(name, shared[key])  # type: ignore[arg-type]
        else:
            holder.register_buffer(name, shared[key])
    return root


def _tensor(file: Container, path: str, entry: Mapping[str, Any]) -> torch.Tensor:
    name = str(entry["tensor"])
    if name not in file:
        raise FileError(f"weight {path!r:.80} is missing", ["get the file again"])
    stored = file.tensor(name)
    shape, strides = list(entry["shape"]), list(map(int, entry["stride"]))
    order = memory_order(strides)
    value = stored
    if len(strides) == len(shape) == stored.ndim and min(strides, default=0) >= 0:
        value = stored.permute([order.index(dim) for dim in range(stored.ndim)])
        if [stride for stride, size in zip(strides, value.shape, strict=True) if size > 1] == [
            stride for stride, size in zip(value.stride(), value.shape, strict=True) if size > 1
        ]:  # those of single entries do not matter, but kernels are chosen by them
            value = value.as_strided(value.shape, strides)
    if list(value.shape) != shape or str(value.dtype) != f"torch.{entry['dtype']}":
        raise FileError(
            f"weight {path!r:.80} is {stored.dtype}{list(stored.shape)}, and the graph has "
            f"{entry['dtype']}{shape}"
        )
    return value


def _code(
    document: Mapping[str, Any], sizes: Sizes, source: nn.Module
) -> tuple[fx.Graph, dict[str, fx.Node]]:
    """Build the operations, with fake values from running them in order."""
    code = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    frames = [
        {str(number): (str(path), str(owner)) for number, (path, owner) in enumerate(stack)}
        for stack in document["modules"]
    ]
    mode = FakeTensorMode(shape_env=sizes.environment, allow_non_fake_inputs=True)
    with ExitStack() as stack:
        stack.enter_context(mode)
        stack.enter_context(sizes.environment.suppress_guards())
        stack.enter_context(enable_python_dispatcher())
        for entry in document["inputs"]:
            node = _create(code, "placeholder", _parameter_name(entry["name"]), entry)
            shape = [sizes.size(tree) for tree in entry["shape"]]
            check_dimensions(shape)
            dtype = argument_of({"dtype": entry["dtype"]}, {})
            device = argument_of({"device": entry["device"]}, {})
            try:
                node.meta["val"] = torch.empty(shape, dtype=dtype, device=device)
            except RuntimeError as error:
                raise FileError(f"input {node.name!r:.80} has no such shape: {error}") from error
            nodes[node.name] = node
        for entry in document["operations"]:
            node = _operation(code, entry, nodes, source)
            if "module" in entry:
                node.meta["nn_module_stack"] = dict(frames[entry["module"]])
            if "part" in entry:
                node.meta["graphprog"] = str(entry["part"])
            nodes[node.name] = node
    code.output(tuple(argument_of(item, nodes) for item in document["returned"]))
    code.lint()
    return code, nodes


def _parameter_name(name: Any) -> str:
    """Check the name of an input, which becomes the name of a Python parameter."""
    if not isinstance(name, str) or not name.isidentifier():
        raise FileError(f"{name!r:.80} is not the name of an input")
    return name


def _create(
    code: fx.Graph,
    kind: str,
    target: Any,
    entry: Mapping[str, Any],
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {}),
) -> fx.Node:
    """Create a node with its stored name, by which others read it."""
    name = entry["node"]
    node = code.create_node(kind, target, *arguments, name=name)
    if node.name != name:
        raise FileError(f"{name!r:.80} is not a name of an operation, or names two")
    return node


def _operation(
    code: fx.Graph, entry: Mapping[str, Any], nodes: Mapping[str, fx.Node], source: nn.Module
) -> fx.Node:
    if "weight" in entry:
        return _weight(code, entry, source)
    name = entry["node"]
    try:
        target = operator_of(entry["operation"])
        args = tuple(argument_of(item, nodes) for item in entry["args"])
        kwargs = {
            _parameter_name(key): argument_of(item, nodes)
            for key, item in entry.get("kwargs", {}).items()
        }
        node = _create(code, "call_function", target, entry, (args, kwargs))
        node.meta["val"] = _value(target, args, kwargs)
    except FileError as error:
        raise FileError(f"operation {name!r:.80}: {error.what}", error.remedies) from error
    except Exception as error:  # operations raise whatever they like
        raise FileError(
            f"operation {name!r:.80}, {entry['operation']:.80}, does not run: {error}"
        ) from error
    return node


def _weight(code: fx.Graph, entry: Mapping[str, Any], source: nn.Module) -> fx.Node:
    path = str(entry["weight"])
    found: Any = source
    for part in path.split("."):
        found = getattr(found, "_modules", {}).get(part) or getattr(found, part, None)
    if not WEIGHT_PATH.fullmatch(path) or not isinstance(found, torch.Tensor):
        raise FileError(f"weight {path!r:.80} is missing", ["get the file again"])
    node = _create(code, "get_attr", f"source.{path}", entry)
    node.meta["val"] = torch.empty_strided(
        found.shape,
        found.stride(),
        dtype=found.dtype,
        device=argument_of({"device": entry["device"]}, {}),
    )
    return node


def _value(target: Any, args: Any, kwargs: Any) -> Any:
    given = fx.node.map_arg((args, kwargs), lambda node: node.meta["val"])
    if is_number_function(target) and target is not operator.getitem:
        _check_numbers((*given[0], *given[1].values()))
    elif isinstance(target, torch._ops.OpOverload):
        _check_shapes(target, *given)
    viewing = target is torch.ops.aten.view.default  # as in an executable graph
    result = (torch.ops.aten.reshape.default if viewing else target)(*given[0], **given[1])
    for leaf in pytree.tree_leaves(result):
        check_number(leaf)
        if isinstance(leaf, torch.Tensor):
            check_dimensions(leaf.shape)
    return result


def _check_shapes(target: torch._ops.OpOverload, args: Sequence[Any], kwargs: Any) -> None:
    """Check the shapes among arguments; other lists of numbers, of parts to split, may be long."""
    schema = target._schema.arguments
    given = {argument.name: value for argument, value in zip(schema, args, strict=False)} | kwargs
    for name, value in given.items():
        if isinstance(value, list | tuple) and "split" not in name and "indices" not in name:
            numbers = [part for part in value if isinstance(part, int | torch.SymInt)]
            check_dimensions([1] * len(numbers))


def _check_numbers(values: Sequence[Any]) -> None:
    """Check operands of Python's arithmetic, which makes huge texts and lists of small ones."""
    if any(isinstance(value, str | list | tuple) for value in values):
        raise FileError("an operation on numbers is given text or a list")


def _call_spec(call: Mapping[str, Any], inputs: list[str]) -> CallSpec:
    names = tuple(None if name is None else str(name) for name in call["names"])
    constants = tuple(argument_of(value, {}) for value in call["constants"])
    tree = structure_of(call["structure"])
    spec = CallSpec(tree, names, constants)
    if tree.num_leaves != len(names) or len(names) != len(constants) or list(spec.inputs) != inputs:
        raise FileError("its inputs are not those of its call")
    return spec


def _out_spec(results: Mapping[str, Any], count: int) -> pytree.TreeSpec:
    tree = structure_of(results["structure"])
    if tree.num_leaves != count or len(results["names"]) != count:
        raise FileError("its results are not as many as it returns")
    return tree


def _sites(entries: Mapping[str, Any], nodes: Mapping[str, fx.Node]) -> dict[str, Site]:
    code = next(iter(nodes.values())).graph
    named = {**nodes, "output": code.output_node()}
    found = {}
    for key, entry in entries.items():
        edges = []
        for user, slot in entry["edges"]:
            leaves = pytree.tree_leaves((named[user].args, named[user].kwargs))
            if leaves[int(slot)] is not named[entry["node"]]:
                raise FileError(f"interface {key!r:.80} does not lie where it is said to")
            edges.append(Edge(named[user].name, int(slot)))
        found[str(key)] = Site(named[entry["node"]].name, tuple(edges), str(entry["module"]))
    return found


def _aliases(document: Mapping[str, Any]) -> dict[str, str]:
    found = {str(alias): str(key) for alias, key in document["aliases"].items()}
    if unknown := [key for key in found.values() if key not in document["interfaces"]]:
        raise FileError(f"an alias names the interface {unknown[0]!r:.80}, which is missing")
    return found
