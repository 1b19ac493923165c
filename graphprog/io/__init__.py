"""Files of programs and graphs, model cards, and hubs.

All that comes from a file is checked here before it is trusted. Files of other runtimes belong in
:mod:`graphprog.backends`, PEFT's in :mod:`graphprog.peft`.
"""

from __future__ import annotations
