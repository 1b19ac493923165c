"""Instruments: record, read out, compare and probe the values at any interface.

Each works on a graph and on a compiled model, and needs nothing but the graph. Here belongs what
reads a network; what changes one is a manipulation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprog.utils.lazy import import_when_used

if TYPE_CHECKING:
    from graphprog.instruments.compare import Comparison as Comparison
    from graphprog.instruments.lens import Lens as Lens
    from graphprog.instruments.probe import Probes as Probes
    from graphprog.instruments.recording import RecordedValue as RecordedValue

import_when_used(__name__)
