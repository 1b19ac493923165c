"""Methods for language models on inputs that are not text."""

from __future__ import annotations

from graphprog.manipulations.inputs.prototypes import Prototypes
from graphprog.manipulations.inputs.vocabulary_map import VocabularyMap
from graphprog.methods.records import Record, method
from graphprog.values.patches import SeriesPatches


@method(
    Record(
        "Jin et al.",
        "ICLR 2024",
        "embedding",
        "parametric",
        "linear",
        "those of patches, prototypes (V·1000) and attention",
        "Adam, learning rate 0.01 (ETTh1), 100 epochs, batches of 24",
    )
)
def time_llm(
    patch: int = 16, stride: int = 8, prototypes: int = 1000, at: str = "tokens"
) -> tuple[Prototypes, ...]:
    """Time-LLM of Jin et al., ICLR 2024: series attend to prototypes of words.

    The paper also puts a text prompt before the series, and reads the last patches by a linear
    layer.

    Args:
        patch: number of time steps per patch.
        stride: distance between patches.
        prototypes: number of prototypes.
        at: interface of the tokens.

    Example:
        >>> parts = gp.methods.time_llm(patch=4, stride=4, prototypes=8)
        >>> program = gp.Program(parts)
    """
    patches = SeriesPatches(patch=patch, stride=stride, padding=stride)
    return (Prototypes(patches=patches, count=prototypes, name="time_llm", at=at),)


@method(
    Record(
        "Melnyk et al.",
        "ICML 2023",
        "embedding",
        "parametric",
        "linear",
        "K_T·V for K_T target words and V words",
        "antibody sequences, cross-entropy of masked tokens",
        align="LinearHead(words)",
    )
)
def reprogbert(words: int, at: str = "tokens") -> tuple[VocabularyMap, ...]:
    """ReprogBERT of Melnyk et al., ICML 2023: target words as linear combinations of source words.

    The paper maps outputs back by a linear layer; its target words are the 20 amino acids.

    Args:
        words: size of the target vocabulary.
        at: interface of the tokens.

    Example:
        >>> parts = gp.methods.reprogbert(words=10)
        >>> program = gp.Program(parts)
    """
    return (VocabularyMap(words, name="reprogbert", at=at),)


@method(
    Record(
        "Vinod et al.",
        "2020",
        "embedding",
        "parametric",
        "structural",
        "K_T·V, of which a few per target word are used",
        "alternating K-SVD and task loss in the paper",
    )
)
def r2dl(words: int, top: int = 8, at: str = "tokens") -> tuple[VocabularyMap, ...]:
    """R2DL of Vinod et al., 2020: sparse combinations, learned by gradients instead of K-SVD.

    Args:
        words: size of the target vocabulary.
        top: number of coefficients used per word; the default is our choice.
        at: interface of the tokens.

    Example:
        >>> parts = gp.methods.r2dl(words=10, top=4)
        >>> program = gp.Program(parts)
    """
    return (VocabularyMap(words, top=top, name="r2dl", at=at),)
