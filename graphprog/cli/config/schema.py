"""The schema of a configuration: what a run needs to know."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of a configuration: unknown keys are mistakes, and nothing is converted."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Method(Section):
    """How the model is reprogrammed: a method by name, or a program."""

    name: str = ""
    """blm, ilm, flm, rlm (a learned frame and a label mapping), linear (a linear head), a name that
    `graphprog methods` lists, or package.module:function of a graph and the data that returns a
    gp.Program. By default blm."""
    program: str = ""
    """The program itself as text, as `graphprog show` prints it, instead of a name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the method, such as tokens = 10; `graphprog methods show NAME` lists them."""


class Augmentation(Section):
    """One random change of training images."""

    name: Name
    """torchvision:RandomHorizontalFlip or albumentations:Rotate; any transform of these."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the transform, such as p = 0.5."""


class Data(Section):
    """Where examples come from, and how they are read."""

    train: Name
    """Folder of classes, .csv, .jsonl, .npz or .npy file, hf:name (a data set on the Hugging Face
    Hub, or a folder of datasets), sklearn:digits, or package.module:function."""
    validation: Name | Share = 0.2
    """Likewise, or the share of the training data that is held out to choose the best epoch; 0 for
    none."""
    test: Name | Share = 0.0
    """Likewise; never used to choose anything: `graphprog evaluate` measures on it."""
    kind: Literal["auto", "image", "text", "audio", "array"] = "auto"
    """What the examples are; auto determines it from the data and the model."""
    input: Name | list[Name] | None = None
    """Column, or array, of the inputs; several columns of numbers become one vector."""
    label: Name | None = None
    """Column, or array, of the labels; for a .npy file, the .npy file of the labels."""
    labels: list[Name] = Field(default_factory=list)
    """Names of the classes in order; by default those of the data."""
    size: Count | Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    """Height and width to which images are resized; by default those of the model's input."""
    channels: Literal[1, 3] | None = None
    """1 for gray images, 3 for color; by default as the model's input has."""
    mean: list[Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=list)
    """Mean of each channel that the model was trained with, for images in [0, 1]; by default as the
    source of the model says."""
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=list)
    """Standard deviation, likewise."""
    sample_rate: Count | None = None
    """Samples per second of audio; by default those of the model."""
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Length to which audio is cut or padded; by default that of the longest training example."""
    augment: list[Augmentation] = Field(default_factory=list)
    """Random changes of training images, in order."""


class Train(Section):
    """How the program is trained; the arguments of gp.fit."""

    epochs: Count = 20
    """Passes over the training data."""
    batch_size: Count = 64
    """Examples per forward pass, over all processes together."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """SGD has a momentum of 0.9."""
    lr: Rate = 0.01
    """Learning rate."""
    weight_decay: Rate = 0.0
    """Weight decay of the optimizer."""
    schedule: Literal["constant", "linear", "cosine", "multistep"] = "constant"
    """Factor of the learning rate over the run."""
    loss: Literal["cross_entropy", "binary_cross_entropy", "mse", "l1"] = "cross_entropy"
    """cross_entropy for classes; mse and l1 for numbers."""
    accumulate: Count = 1
    """Batches per optimizer step."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""
    patience: Count | None = None
    """Stop after this number of epochs without a better one on the validation data."""
    engine: Literal["pytorch", "onnxruntime"] = "pytorch"
    """What computes the steps."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of the run in which the learning rate rises."""
    class_weight: Literal["balanced"] | list[Rate] | None = None
    """Weights of the classes in the training loss."""
    metrics: list[Name] = Field(default_factory=list)
    """Metrics of the validation data, such as macro_f1."""
    monitor: Name | None = None
    """What determines the best epoch: accuracy, loss or a metric."""
    reuse: Literal["off", "auto", "memory", "disk"] = "auto"
    """Where values that training does not change are kept."""
    memory: Literal["normal", "low"] = "normal"
    """Whether the backward pass keeps few values, and computes the others again."""


class Configuration(Section):
    """A run: a model, a method, data, and how to train."""

    model: Name
    """Name or file of the model, such as timm:resnet18."""
    output: Name | None = None
    """Folder of the run; by default runs/ and the name of the configuration."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of splits, initial values and the order of examples."""
    method: Method = Field(default_factory=Method)
    data: Data
    train: Train = Field(default_factory=Train)
