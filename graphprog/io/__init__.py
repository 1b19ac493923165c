"""Files of programs and graphs, model cards, and hubs.

Everything read from a file is checked before use. Files of other runtimes belong in
:mod:`graphprog.backends`, PEFT's in :mod:`graphprog.peft`.
"""

from __future__ import annotations
