"""Published methods as compositions of manipulations.

Each function returns the manipulations of a method, with the defaults of its paper or of the
authors' code, for ``gp.Program([*gp.methods.ia3(...), ...], align=...)``. If a method defines how
outputs are read, its docstring names the alignment. ``gp.methods.table()`` lists them with their
coordinates in the survey. New mechanisms do not belong here.
"""

from __future__ import annotations

from graphprog.methods.adapters import houlsby, llama_adapter, parallel_adapter, pfeiffer
from graphprog.methods.frames import (
    adversarial_reprogramming,
    blm,
    evp,
    flm_vp,
    frame_pattern,
    full_pattern,
    ilm_vp,
    rlm_vp,
    vp,
    vp_patch,
)
from graphprog.methods.nodes import gpf, gpf_plus
from graphprog.methods.pixels import blackvip, smm
from graphprog.methods.prefixes import p_tuning_v2, prefix_tuning
from graphprog.methods.prompts import (
    bbt,
    maple,
    mpt,
    p_tuning,
    prompt_tuning,
    vpt_deep,
    vpt_shallow,
)
from graphprog.methods.records import table as table
from graphprog.methods.scaling import graph_prompt, ia3
from graphprog.methods.subspaces import loreft
from graphprog.methods.weights import bitfit, dora, ln_tuning, lora, trainable_tokens, vera
from graphprog.methods.words import r2dl, reprogbert, time_llm

__all__ = [
    "adversarial_reprogramming",
    "bbt",
    "bitfit",
    "blackvip",
    "blm",
    "dora",
    "evp",
    "flm_vp",
    "frame_pattern",
    "full_pattern",
    "gpf",
    "gpf_plus",
    "graph_prompt",
    "houlsby",
    "ia3",
    "ilm_vp",
    "llama_adapter",
    "ln_tuning",
    "lora",
    "loreft",
    "maple",
    "mpt",
    "p_tuning",
    "p_tuning_v2",
    "parallel_adapter",
    "pfeiffer",
    "prefix_tuning",
    "prompt_tuning",
    "r2dl",
    "reprogbert",
    "rlm_vp",
    "smm",
    "time_llm",
    "trainable_tokens",
    "vera",
    "vp",
    "vp_patch",
    "vpt_deep",
    "vpt_shallow",
]
