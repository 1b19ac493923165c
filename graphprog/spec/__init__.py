"""Specs: frozen dataclasses that print as text, parse back, and are checked where they are read.

Here belong the registry, the grammar of the text, and checks of fields. What a spec means belongs
to the class that is registered: a manipulation, an alignment, a value, a pass.
"""

from __future__ import annotations

from graphprog.spec.registry import ENTRY_POINTS as ENTRY_POINTS
from graphprog.spec.registry import Spec as Spec
from graphprog.spec.registry import format_spec as format_spec
from graphprog.spec.registry import from_json as from_json
from graphprog.spec.registry import parse_spec as parse_spec
from graphprog.spec.registry import spec as spec
from graphprog.spec.registry import to_json as to_json
