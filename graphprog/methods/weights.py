"""Methods that change weights, as changes that act in the graph: the source keeps its tensors."""

from __future__ import annotations

from graphprog.manipulations.modules.layer_update import (
    LowRankUpdate,
    TokenUpdate,
    VectorUpdate,
    WeightUpdate,
)
from graphprog.methods.records import Record, method

QUERIES_AND_VALUES = ("attention[*].q_proj", "attention[*].v_proj")
WITH_BIAS = (
    *(f"attention[*].{part}_proj" for part in "qkvo"),
    "mlp[*].up_proj",
    "mlp[*].down_proj",
    "norm[*]",
)


def _part(layer: str) -> str:
    """Return a name for the part of a program at some layers."""
    name = layer.rpartition(".")[2] or layer
    return "".join(sign if sign.isalnum() else "_" for sign in name).strip("_")


@method(
    Record(
        "Hu et al.",
        "ICLR 2022",
        "hidden",
        "parametric",
        "identity",
        "Σ r·(n + m) over layers n → m",
        "AdamW, linear decay; GPT-2: learning rate 2e-4, r = 4, alpha = 32, 5 epochs",
    )
)
def lora(
    rank: int = 8, alpha: float = 8.0, layers: tuple[str, ...] = QUERIES_AND_VALUES
) -> tuple[LowRankUpdate, ...]:
    """LoRA of Hu et al., ICLR 2022: a product of low rank added to the weights of layers.

    Args:
        rank: r, at most the width of the layers.
        alpha: the update is scaled by alpha/r.
        layers: the layers; the paper takes those of queries and values. Name ``qkv_proj`` if one
            layer computes them all.

    Example:
        >>> task = gp.compile(language, gp.Program(gp.methods.lora(rank=2)))
        >>> assert torch.equal(task(ids), language(ids))  # a fresh one changes nothing
    """
    return tuple(
        LowRankUpdate(at=layer, rank=rank, alpha=alpha, name=f"lora_{_part(layer)}")
        for layer in layers
    )


@method(
    Record(
        "Liu et al.",
        "ICML 2024",
        "hidden",
        "parametric",
        "identity",
        "Σ r·(n + m) + m over layers n → m",
        "AdamW, linear decay; LLaMA-7B: learning rate 2e-4, r = 32, alpha = 64, 3 epochs",
    )
)
def dora(
    rank: int = 8, alpha: float = 8.0, layers: tuple[str, ...] = QUERIES_AND_VALUES
) -> tuple[LowRankUpdate, ...]:
    """DoRA of Liu et al., ICML 2024: LoRA on the directions of weights, with learned lengths.

    Args:
        rank: r, at most the width of the layers.
        alpha: the update is scaled by alpha/r.
        layers: the layers, each with a weight of its own.

    Example:
        >>> task = gp.compile(language, gp.Program(gp.methods.dora(rank=2)))
        >>> assert torch.equal(task(ids), language(ids))  # a fresh one changes nothing
    """
    return tuple(
        LowRankUpdate(
            at=layer, rank=rank, alpha=alpha, decomposed=True, name=f"dora_{_part(layer)}"
        )
        for layer in layers
    )


@method(
    Record(
        "Kopiczko et al.",
        "ICLR 2024",
        "hidden",
        "parametric",
        "identity",
        "Σ r + m over layers n → m",
        "AdamW, linear decay; RoBERTa: r = 1024 or 256, learning rates 1e-3 to 1e-2",
    )
)
def vera(
    rank: int = 256, layers: tuple[str, ...] = QUERIES_AND_VALUES, seed: int = 0
) -> tuple[VectorUpdate, ...]:
    """VeRA of Kopiczko et al., ICLR 2024: learned vectors around shared random matrices.

    Args:
        rank: width of the random projection.
        layers: the layers; the paper takes those of queries and values.
        seed: seed of the random matrices.

    Example:
        >>> task = gp.compile(language, gp.Program(gp.methods.vera(rank=16)))
        >>> assert torch.equal(task(ids), language(ids))  # a fresh one changes nothing
    """
    return tuple(
        VectorUpdate(at=layer, rank=rank, seed=seed, name=f"vera_{_part(layer)}")
        for layer in layers
    )


@method(
    Record(
        "Zhao et al.",
        "ICLR 2024",
        "hidden",
        "additive",
        "identity",
        "Σ 2·d over norms, d without biases",
        "as fine-tuning; multi-modal instructions for LLaMA 2 and Vicuna",
    )
)
def ln_tuning(at: str = "norm[*]", bias: bool = True) -> tuple[WeightUpdate, ...]:
    """LN-tuning of Zhao et al., ICLR 2024: train the weights and biases of norms.

    Args:
        at: the norms.
        bias: whether they have biases; root mean squares, as in Llama, have none.

    Example:
        >>> parts = gp.methods.ln_tuning("layers.*.norm", bias=False)
        >>> [part.at for part in parts]
        ['layers.*.norm:weight']
    """
    ends = ("weight", "bias") if bias else ("weight",)
    return tuple(WeightUpdate(at=f"{at}:{end}", name=f"norm_{end}") for end in ends)


@method(
    Record(
        "Ben Zaken et al.",
        "ACL 2022",
        "hidden",
        "additive",
        "linear",
        "Σ m over layers with a bias",
        "AdamW, batches of 16, learning rates 1e-4 to 1e-3 (BERT)",
        align="LinearHead(classes)",
    )
)
def bitfit(layers: tuple[str, ...] = WITH_BIAS) -> tuple[WeightUpdate, ...]:
    """BitFit of Ben Zaken et al., ACL 2022: train the biases of a transformer, and a head.

    Args:
        layers: layers and norms, each with a bias.

    Example:
        >>> parts = gp.methods.bitfit(("mlp[*].up_proj", "mlp[*].down_proj"))
        >>> task = gp.compile(language, gp.Program(parts))
    """
    return tuple(WeightUpdate(at=f"{layer}:bias", name=f"bias_{_part(layer)}") for layer in layers)


@method(
    Record(
        "PEFT library",
        "2025",
        "embedding",
        "additive",
        "identity",
        "k·d for k tokens",
        "none published; as for the adapters it is combined with",
    )
)
def trainable_tokens(
    tokens: tuple[int, ...], ids: str = "input", at: str = "tokens"
) -> tuple[TokenUpdate, ...]:
    """Trainable tokens of the PEFT library: train the embeddings of some tokens alone.

    Args:
        tokens: ids of the tokens.
        ids: input of the ids; ``input:input_ids`` of a model with several inputs.
        at: where the embedded tokens are.

    Example:
        >>> task = gp.compile(language, gp.Program(gp.methods.trainable_tokens((3, 7))))
        >>> assert torch.equal(task(ids), language(ids))  # a fresh one changes nothing
    """
    return (TokenUpdate(tuple(tokens), ids, at=at, name="trainable_tokens"),)
