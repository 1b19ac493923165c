"""Files of programs, model cards, and hubs.

Everything read from a file is checked before use; ``limits`` says what a program may ask for. Files
of graphs belong in
:mod:`graphprog.ir.graph_file`, those of other runtimes in :mod:`graphprog.backends`, PEFT's in
:mod:`graphprog.peft`.
"""

from __future__ import annotations
