"""Published methods as compositions of manipulations.

Each function returns the manipulations of a method, with the defaults of its paper or of the
authors' code, for ``gp.Program([*gp.methods.ia3(...), ...], align=...)``. If a method defines how
outputs are read, its docstring names the alignment. New mechanisms do not belong here.
"""

from __future__ import annotations

from graphprog.methods.adapters import houlsby, llama_adapter, parallel_adapter, pfeiffer
from graphprog.methods.nodes import gpf, gpf_plus
from graphprog.methods.pixels import blackvip, smm
from graphprog.methods.prefixes import p_tuning_v2, prefix_tuning
from graphprog.methods.prompts import maple, p_tuning, prompt_tuning, vpt_deep, vpt_shallow
from graphprog.methods.scaling import graph_prompt, ia3
from graphprog.methods.subspaces import loreft
from graphprog.methods.words import r2dl, reprogbert, time_llm

__all__ = [
    "blackvip",
    "gpf",
    "gpf_plus",
    "graph_prompt",
    "houlsby",
    "ia3",
    "llama_adapter",
    "loreft",
    "maple",
    "p_tuning",
    "p_tuning_v2",
    "parallel_adapter",
    "pfeiffer",
    "prefix_tuning",
    "prompt_tuning",
    "r2dl",
    "reprogbert",
    "smm",
    "time_llm",
    "vpt_deep",
    "vpt_shallow",
]
