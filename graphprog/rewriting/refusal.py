"""Refusals: the operation at which a rewriting is not possible, and why."""

from __future__ import annotations

import re

from torch import fx

from graphprog.ir.printing import module_path, operator_name
from graphprog.utils.user_frames import is_users


class RefusalError(Exception):
    """A rewriting is not possible at a node.

    Attributes:
        node: the operation that cannot be rewritten.
        why: the reason, in words.
        reader: the operation that reads it, if that is the one that needs it rewritten.
    """

    def __init__(self, node: fx.Node, why: str, reader: fx.Node | None = None) -> None:
        self.node = node
        self.why = why
        self.reader = reader if reader is not node else None
        super().__init__(self.text)

    @property
    def text(self) -> str:
        """Return the reason with operation, module and source line."""
        place = _place(self.node)
        if self.reader is not None:
            place += f", which {_place(self.reader)} reads"
        line = source_line(self.node) or (source_line(self.reader) if self.reader else "")
        return f"{self.why}: {place}{line}"


def _place(node: fx.Node) -> str:
    if node.op == "get_attr":
        what = f"tensor {str(node.target).removeprefix('source.')}"
    elif node.op == "placeholder":
        what = f"input {node.target}"
    else:
        what = operator_name(node)
    sizes = getattr(node.meta.get("val"), "shape", None)
    shape = f" ({', '.join(map(str, sizes))})" if sizes is not None else ""
    path = module_path(node)
    return f"{what}{shape}" + (f" in module {path!r}" if path else "")


def source_line(node: fx.Node) -> str:
    """Return the line of the model's code that a node comes from, or "" if unknown."""
    trace = node.meta.get("stack_trace") or ""
    frames = re.findall(r'File "(.+?)", line (\d+), in .*\n +(.*)', trace)
    own = [frame for frame in frames if is_users(frame[0])] or frames
    return "\n  at {}:{}: {}".format(*own[-1]) if own else ""
