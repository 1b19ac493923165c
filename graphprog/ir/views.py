"""Operations that return the numbers they read, in another shape or type."""

from __future__ import annotations

RESHAPES = frozenset({"aten::view", "aten::reshape", "aten::_unsafe_view", "aten::unflatten"})
"""Those that are told the lengths of their result."""

REGROUPS = RESHAPES | {"aten::flatten"}
"""Those that keep the order of the numbers."""

VIEWS = REGROUPS | {"aten::expand"}

CASTS = frozenset({"aten::to", "aten::_to_copy", "aten::clone", "aten::contiguous", "aten::detach"})
