"""Replace the ids that a model looks up by an input of another kind."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx, nn
from torch.utils.hooks import RemovableHandle

from graphprog.analysis.token_inputs import KEEPS_NUMBERS, TokenLookup
from graphprog.errors import InterfaceError, PassError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph, Insertion
from graphprog.ir.ops import schema_name
from graphprog.ir.printing import module_path, operator_name
from graphprog.manipulations.inputs.token_source import TokenSource
from graphprog.passes.base import Pass
from graphprog.passes.insert.insert import RestoreInput, RestoreUses, same_type, unique_label
from graphprog.passes.insert.operands import read
from graphprog.rewriting.edges import uses_of
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_tracing import fake_mode_of
from graphprog.rewriting.inliner import inline
from graphprog.spec.registry import spec
from graphprog.values.allocation import build
from graphprog.values.context import BuildContext

_READS_SIZES = ("sym_size", "sym_numel", "new_zeros", "new_ones", "new_full", "new_empty")


@spec("replace-tokens")
@dataclasses.dataclass(frozen=True)
class ReplaceTokens(Pass):
    """Replace the input of ids by another input, from which a manipulation computes the tokens.

    Otherwise the source model reads only the shape of the ids, from zeros of that shape.

    Attributes:
        op: the manipulation; ``op.at`` is an interface like ``tokens``, at the result of looking
            ids up in a table.
        seed: seed of random initial values.

    Example:
        >>> changed = gp.passes.ReplaceTokens(gp.VocabularyMap(words=10))(language)
        >>> assert changed(torch.randint(10, (2, 5))).shape == (2, 5, 256)
    """

    op: TokenSource
    seed: int = 0

    def requires(self, graph: Graph) -> None:
        """Check that the ids are an input that is not changed yet."""
        place = graph.interfaces().resolve(self.op.at)
        changed = {insertion.at for insertion in graph.insertions}
        if place.key in changed:
            raise PassError(f"{place.key} is already changed; {self.op.kind} must come first")
        ids, _ = _lookup(graph.nodes[place.node], place.key)
        if f"input:{ids.target}" in changed:
            raise PassError(f"input:{ids.target} is already changed by another part")
        _refuse_other_readers(ids, graph.nodes[place.node])

    def run(self, graph: Graph) -> Graph:
        """Put a new placeholder first, the manipulation after it, and zeros for the ids."""
        place = graph.interfaces().resolve(self.op.at)
        edit = Editor(graph, str(self))
        tokens = edit.node(place.node)
        ids, table = _lookup(tokens, place.key)
        value, key = fake_tensor(ids), f"input:{ids.target}"
        if value.ndim != 2 or fake_tensor(tokens).ndim != 3:
            raise InterfaceError(f"{place.key}: ids of shape {list(value.shape)} are not [B, T]")
        shape = self.op.shape(value.shape[1], place.key)
        with fake_mode_of(value):
            target = value.new_empty((value.shape[0], *shape), dtype=self.op.dtype)
        new = edit.replace_placeholder(ids, target)
        inputs = [new, read(edit, graph, table, place.key)]
        made_of = tuple(fake_tensor(node) for node in inputs)
        generator = torch.Generator().manual_seed(self.seed)
        label = unique_label(graph, self.op.label)
        context = BuildContext(fake_tensor(tokens), place.key, generator, made_of)
        module = build(self.op, context)
        with _with_ids(module, value.dtype):
            made, zeros = inline(edit, label, module, inputs, place.key)
        same_type(place.key, context.value, made)
        same_type(key, value, zeros)
        edit.redirect(ids, set(uses_of(ids)), zeros, set())
        edit.redirect(tokens, edit.edges(place.edges), made, set(), place.key)
        edit.code.erase_node(ids)
        edit.drop_sites([key])
        edit.add_site(key, new)
        edit.share(label, made)
        name = str(ids.target)
        undo = RestoreInput(name, value, zeros.name)
        edit.record(Insertion("input", label, key, zeros.name, name, undo, self.op.label))
        uses, at = RestoreUses(made.name, tokens.name), place.key
        edit.record(Insertion("value", label, at, made.name, tokens.name, uses, self.op.label))
        return edit.finish()


def _with_ids(module: nn.Module, dtype: torch.dtype) -> RemovableHandle:
    """A module that also returns zeros in the shape of ids."""

    def add(_: nn.Module, args: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # under another name, because erasing gives all uses of the result back to the source
        return torch.ops.aten.alias(tokens), tokens.new_zeros(tokens.shape[:2], dtype=dtype)

    return module.register_forward_hook(add)


def _lookup(tokens: fx.Node, where: str) -> tuple[fx.Node, str]:
    """Return the input whose ids are looked up, and the path of the table.

    Raises:
        InterfaceError: the value is not the result of looking an input up.
    """
    lookup = TokenLookup.of(tokens)
    table = None if lookup is None else lookup.node.args[0]
    if lookup is None or not isinstance(table, fx.Node) or table.op != "get_attr":
        raise InterfaceError(
            f"{where} is not the result of looking an input up in a table",
            ["act at 'tokens'; print(graph.interfaces()) shows whether there is one"],
        )
    return lookup.ids, str(table.target)


def _refuse_other_readers(ids: fx.Node, tokens: fx.Node) -> None:
    """Refuse a model that reads the values of ids elsewhere.

    Raises:
        InterfaceError: names the operation and its module.
    """
    waiting = [ids]
    while waiting:
        for user in waiting.pop().users:
            name = operator_name(user).split(".")[0]
            if schema_name(user) in KEEPS_NUMBERS:
                waiting.append(user)
            elif user is not tokens and name not in _READS_SIZES and not name.endswith("_like"):
                path = module_path(user)
                raise InterfaceError(
                    f"input:{ids.target} is also read by {name}{f' in {path}' if path else ''}, "
                    "which would take the new input for token ids",
                    [
                        "give the model as inputs of their own what it derives from ids",
                        "attention_mask= and position_ids= are such inputs of many models",
                    ],
                )
