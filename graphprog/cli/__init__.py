"""The command line, one command a file.

Commands use the public names of :mod:`graphprog`, which are imported when used, so that help is
quick. Here belongs what talks to a terminal; what a command computes is a function elsewhere.
"""

from __future__ import annotations
