"""Load a checkpoint folder of PEFT as a task."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import torch

from graphprog.compiler.compile import compile
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import FileError, GraphprogError
from graphprog.ir.graph import Graph, require_graph
from graphprog.manipulations.modules.scale import Scale
from graphprog.manipulations.modules.trainable_layer import TrainableLayer
from graphprog.manipulations.prompts.concatenative import Concatenative
from graphprog.peft.folder import MULTITASK, PREFIX, PROMPTS, Folder, Part, read
from graphprog.peft.places import DECODER_IDS, module_key, tokens_of
from graphprog.peft.prefix import read_prefix
from graphprog.utils.patterns import full_match
from graphprog.values.base import Learnable
from graphprog.values.reparameterized import LowRank

_VECTOR = "ia3_l"


def load(
    path: str | os.PathLike[str],
    graph: Graph,
    *,
    task: int = 0,
    at: str = "",
    revision: str | None = None,
    token: str | None = None,
) -> ReprogrammedModel:
    """Load a PEFT checkpoint and compile it into the model that it was trained for.

    Prompt tuning, P-tuning and multitask prompt tuning become entries at ``tokens``, of the
    encoder if there are two towers; prefix tuning becomes a prefix of attention, of the decoder if
    there are two towers; (IA)³ becomes scalings. Heads in ``modules_to_save`` become parts as well.
    All parts can be trained further.

    Args:
        path: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``, or
            ``owner/name`` on the Hugging Face Hub.
        graph: the captured base model, of the class and number of labels that was trained.
        task: index of the task of multitask prompt tuning.
        at: attention operations of a prefix in place of PEFT's, such as ``encoder.attention[*]``,
            which PEFT does not support.
        revision: branch, tag or commit on the Hub.
        token: access token for the Hub.

    Raises:
        FileError: the folder is incomplete, of another method, or for another model; says what.
        InterfaceError: the graph embeds no token ids.

    Example:
        >>> prompted = gp.compile(language, gp.Program(gp.methods.prompt_tuning(tokens=4)))
        >>> gp.peft.save(prompted, "prompt", base_model_name_or_path="small", task_type="CAUSAL_LM")
        >>> again = gp.peft.load("prompt", language)
    """
    require_graph(graph)
    folder = read(path, revision, token)
    prompts = _prompts(folder, graph, task) if folder.kind in PROMPTS else ()
    prefix = (read_prefix(folder, graph, at),) if folder.kind == PREFIX else ()
    parts = [*prompts, *prefix, *_of_modules(folder, graph)]
    try:
        program = Program(tuple(item.part for item in parts))
        compiled = compile(graph, program)
        compiled.load_program_state(
            {
                f"program.{item.part.label}.{name}": tensor
                for item in parts
                for name, tensor in item.state.items()
            }
        )
    except GraphprogError as error:
        raise FileError(f"{folder.name}: {error.what}", error.remedies) from error
    return compiled


def _prompts(folder: Folder, graph: Graph, task: int) -> Iterator[Part]:
    """The prompt, and the decoder's prompt of multitask prompt tuning if any."""
    length = folder.number("num_virtual_tokens")
    entries = folder.tensor("prompt_embeddings")
    submodules = len(entries) // length if length else 0
    if entries.ndim != 2 or submodules not in (1, 2) or len(entries) % length:
        raise FileError(
            f"{folder.name}: prompt_embeddings has shape {tuple(entries.shape)}, which is not that "
            f"of {length} virtual tokens"
        )
    multitask = folder.kind == MULTITASK
    towers = [("prompt", tokens_of(graph))]
    if multitask and submodules == 2:  # other methods do not use the second half
        towers.append(("decoder_prompt", tokens_of(graph, DECODER_IDS)))
    for number, (name, at) in enumerate(towers):
        rows = slice(number * length, (number + 1) * length)
        if not multitask:
            part = Concatenative(at=at, name=name, length=length, value=Learnable())
            yield Part(part, {"value": entries[rows]})
            continue
        state = _task_of(folder, task)
        own = {
            "start": entries[rows],
            "columns": state["prefix_task_cols"][rows],
            "rows": state["prefix_task_rows"],
        }
        value = LowRank(rank=len(own["rows"]), start=Learnable())
        part = Concatenative(at=at, name=name, length=length, value=value)
        yield Part(part, {f"made.rows.{path}": tensor for path, tensor in own.items()})


def _task_of(folder: Folder, task: int) -> dict[str, torch.Tensor]:
    names = ("prefix_task_cols", "prefix_task_rows")
    found = {name: folder.tensor(name) for name in names}
    count = len(found[names[0]])
    if not 0 <= task < count:
        raise FileError(f"{folder.name}: there is no task {task}; it has {count}")
    return {name: tensor[task] for name, tensor in found.items()}


def _of_modules(folder: Folder, graph: Graph) -> Iterator[Part]:
    """Scalings, and other trained layers."""
    for path, tensors in folder.modules().items():
        if set(tensors) == {_VECTOR}:
            yield _scaling(folder, graph, path, tensors[_VECTOR])
        elif set(tensors) in ({"weight"}, {"weight", "bias"}) and tensors["weight"].ndim == 2:
            at = module_key(graph, path, "out", folder.name)
            part = TrainableLayer(at=at, name=_name(path), bias="bias" in tensors)
            _check_layer(folder, graph, path, tensors["weight"])
            yield Part(part, {f"layer.{name}": tensor for name, tensor in tensors.items()})
        else:
            raise FileError(
                f"{folder.name}: {path} was trained but is not an affine layer; it has "
                f"{', '.join(tensors)}",
                ["save it in the base model, and capture that model"],
            )


def _scaling(folder: Folder, graph: Graph, path: str, vector: torch.Tensor) -> Part:
    feeds = _is_feedforward(folder, path)
    if vector.ndim != 2 or vector.shape[0 if feeds else 1] != 1:
        raise FileError(
            f"{folder.name}: the scaling of {path} has shape {tuple(vector.shape)}, which is not "
            "that of a linear layer"
        )
    at = module_key(graph, path, "in" if feeds else "out", folder.name)
    return Part(Scale(at=at, name=_name(path)), {"value": vector.flatten()})


def _is_feedforward(folder: Folder, path: str) -> bool:
    """Whether the input of a module is scaled, not its output."""
    wanted = folder.config.get("feedforward_modules")
    if isinstance(wanted, str):
        try:
            return full_match(wanted, path)
        except ValueError as error:
            raise FileError(
                f"{folder.name}: feedforward_modules {wanted!r:.80}: {error}"
            ) from error
    return any(path.endswith(str(name)) for name in wanted or ())


def _check_layer(folder: Folder, graph: Graph, path: str, weight: torch.Tensor) -> None:
    table = graph.interfaces()
    keys = [module_key(graph, path, end, folder.name) for end in ("out", "in")]
    sizes = tuple(table[key].shape[-1] for key in keys)
    if sizes != tuple(weight.shape):
        raise FileError(
            f"{folder.name}: {path} was trained with a weight of shape {tuple(weight.shape)}, but "
            f"the graph's has {sizes}",
            ["capture the base model with the same number of labels"],
        )


def _name(path: str) -> str:
    return re.sub(r"\W", "_", path)
