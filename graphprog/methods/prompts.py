"""Prompt tuning methods: learned entries in the sequence.

The alignment depends on the task: ``LinearHead(at="features")`` for classification as in VPT, none
for language modeling.
"""

from __future__ import annotations

from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.prompts.concatenative import Concatenative
from graphprog.manipulations.prompts.replacement import Replacement
from graphprog.methods.records import Record, method
from graphprog.spec.checks import require_choice
from graphprog.values.base import Learnable
from graphprog.values.entries import Derived, Shared
from graphprog.values.initializers import Init, PatchUniform
from graphprog.values.reparameterized import LSTM, MLP, LowRank, Subspace

Parts = tuple[Manipulation, ...]
"""The manipulations of a method."""


@method(
    Record(
        "Lester et al.",
        "EMNLP 2021",
        "embedding",
        "concatenative",
        "identity",
        "n·d",
        "Adafactor, learning rate 0.3, weight decay 1e-5, 30,000 steps, batches of 32",
    )
)
def prompt_tuning(tokens: int = 100, init: str | Init = "vocabulary") -> Parts:
    """Prompt tuning (Lester et al., EMNLP 2021): learned tokens before the embedded text.

    Args:
        tokens: n, number of tokens; n·d parameters.
        init: ``vocabulary``, ``normal``, or an initializer such as
            ``gp.initializers.text(tokenizer, "...")`` with words that describe the task.

    Example:
        >>> parts = gp.methods.prompt_tuning(tokens=4, init="vocabulary")
        >>> task = gp.compile(language, gp.Program(parts))
    """
    prompt = Concatenative(at="tokens", length=tokens, init=init, name="prompt")
    return (prompt,)


@method(
    Record(
        "Liu et al.",
        "2021",
        "embedding",
        "concatenative",
        "structural",
        "n·d when saved",
        "as the task; the network is dropped after training",
        align="Verbalizer(words)",
    )
)
def p_tuning(tokens: int = 20, hidden: int = 128, encoder: str = "mlp") -> Parts:
    """P-tuning (Liu et al., 2021): prompt tokens computed by a small network, merged when saved.

    The paper searches the number of tokens; its network is as wide as the embedding, which
    ``hidden`` can be set to, and for the ``lstm`` to half of it, the width of each direction.

    Args:
        tokens: number of tokens.
        hidden: width of the network; the default is small, as prompts are few.
        encoder: ``mlp`` of three layers, or ``lstm`` followed by two linear layers.

    Example:
        >>> parts = gp.methods.p_tuning(tokens=4, hidden=8, encoder="lstm")
        >>> program = gp.Program(parts)
    """
    require_choice("p_tuning", "encoder", encoder, ("mlp", "lstm"))
    value = MLP(hidden, layers=3, activation="relu") if encoder == "mlp" else LSTM(hidden)
    prompt = Concatenative(at="tokens", length=tokens, value=value, name="prompt")
    return (prompt,)


@method(
    Record(
        "Wang et al.",
        "ICLR 2023",
        "embedding",
        "parametric+concatenative",
        "identity",
        "n·d + n·r + r·d; n + d per further task",
        "P distilled from prompts of many tasks, then tuned; T5, learning rates 0.3 and 0.4",
    )
)
def mpt(tokens: int = 100, rank: int = 1) -> Parts:
    """Multitask prompt tuning (Wang et al., ICLR 2023): a shared prompt, scaled by low rank.

    Args:
        tokens: n, number of tokens.
        rank: r, rank of the factors that belong to a task.

    Example:
        >>> parts = gp.methods.mpt(tokens=4)
        >>> program = gp.Program(parts)
    """
    return (Concatenative(at="tokens", length=tokens, value=LowRank(rank), name="prompt"),)


@method(
    Record(
        "Sun et al.",
        "ICML 2022",
        "embedding",
        "concatenative",
        "structural",
        "z: 500 numbers",
        "CMA-ES, population of 20, 8000 queries, without gradients of the source",
        align="Verbalizer(words)",
    )
)
def bbt(tokens: int = 50, size: int = 500) -> Parts:
    """Black-box tuning (Sun et al., ICML 2022): a prompt in a random subspace, p + A z.

    The paper trains z without gradients of the source.

    Args:
        tokens: number of tokens.
        size: number of trained numbers z.

    Example:
        >>> parts = gp.methods.bbt(tokens=4, size=10)
        >>> program = gp.Program(parts)
    """
    return (Concatenative(at="tokens", length=tokens, value=Subspace(size), name="prompt"),)


@method(
    Record(
        "Jia et al.",
        "ECCV 2022",
        "embedding",
        "concatenative",
        "linear",
        "n·d, and a head d·K + K",
        "SGD, momentum 0.9, cosine, warm-up of 10 of 100 epochs; rates and decay searched",
        align="LinearHead(classes, at=features)",
    )
)
def vpt_shallow(
    tokens: int = 10,
    init: str | Init | None = None,
    offset: int = 1,
    at: str = "embedding",
) -> Parts:
    """VPT-shallow (Jia et al., ECCV 2022): learned tokens after the class token.

    Args:
        tokens: n, number of tokens; n·d parameters.
        init: initial values; None is the paper's U(±√(6/(c·p²+d))) for the source's patches.
        offset: 1 after the class token, 0 without a class token, -1 at the end.
        at: interface where the sequence enters the blocks.

    Example:
        >>> parts = gp.methods.vpt_shallow(tokens=4, offset=0, at="tokens")
        >>> program = gp.Program(parts)
    """
    prompt = Concatenative(
        at=at, length=tokens, offset=offset, value=_vpt_start(init), name="prompt"
    )
    return (prompt,)


@method(
    Record(
        "Jia et al.",
        "ECCV 2022",
        "embedding+hidden",
        "concatenative",
        "linear",
        "L·n·d, and a head d·K + K",
        "SGD, momentum 0.9, cosine, warm-up of 10 of 100 epochs; rates and decay searched",
        align="LinearHead(classes, at=features)",
    )
)
def vpt_deep(
    tokens: int = 10,
    init: str | Init | None = None,
    offset: int = 1,
    tower: str = "",
    depth: int | None = None,
    shared: bool = False,
) -> Parts:
    """VPT-deep (Jia et al., ECCV 2022): new tokens in the same slots before every block.

    Args:
        tokens: n, number of tokens per block; L·n·d parameters.
        init: initial values; None is the paper's U(±√(6/(c·p²+d))) for the source's patches.
        offset: 1 after the class token, 0 without a class token, -1 at the end.
        tower: tower of a model with several, such as ``vision``.
        depth: number of blocks with tokens, from the first one; None is all.
        shared: whether to use the same tokens before every block.

    Example:
        >>> parts = gp.methods.vpt_deep(tokens=4, offset=0)
        >>> program = gp.Program(parts)
    """
    prefix = f"{tower}." if tower else ""
    start = _vpt_start(init)
    first = Concatenative(
        at=f"{prefix}embedding", length=tokens, offset=offset, value=start, name="prompt"
    )
    parts: list[Manipulation] = [first]
    if depth is None or depth > 1:
        last = -1 if depth is None else depth - 1
        value = Shared("prompt") if shared else start
        parts.append(
            Replacement(
                at=f"{prefix}hidden[:{last}]",
                length=tokens,
                offset=offset,
                value=value,
                name="deep",
            )
        )
    return tuple(parts)


@method(
    Record(
        "Khattak et al.",
        "CVPR 2023",
        "embedding+hidden",
        "concatenative",
        "structural",
        "depth·(n·d_text + d_text·d_vision + d_vision)",
        "SGD, learning rate 0.0035, 5 epochs, batches of 4",
    )
)
def maple(
    tokens: int = 2,
    depth: int = 9,
    text: str = "text",
    vision: str = "vision",
) -> Parts:
    """MaPLe (Khattak et al., CVPR 2023): text prompts, and linear maps of them as vision prompts.

    Text prompts are inserted after the first token, and get position embeddings like words; vision
    prompts at the end, after position embeddings and before the norm of the tower. Both are
    replaced before each block up to ``depth``, the vision prompts by a linear map of the text
    prompts.

    Args:
        tokens: number of tokens per prompt.
        depth: number of blocks with prompts in each tower.
        text: name of the text tower.
        vision: name of the vision tower.

    Example:
        >>> parts = gp.methods.maple(tokens=2, depth=3)
        >>> program = gp.Program(parts)  # for a model with a text and a vision tower
        >>> parts[0].name, parts[0].length
        ('text', 2)
    """
    parts: list[Manipulation] = [
        Concatenative(at=f"{text}.tokens", length=tokens, offset=1, name="text"),
        Concatenative(
            at=f"{vision}.prenorm",
            length=tokens,
            offset=-1,
            value=Derived("text"),
            name="vision",
        ),
    ]
    for block in range(depth - 1):
        name = f"text_{block}"
        parts += [
            Replacement(at=f"{text}.hidden[{block}]", length=tokens, offset=1, name=name),
            Replacement(
                at=f"{vision}.hidden[{block}]",
                length=tokens,
                offset=-1,
                value=Derived(name),
                name=f"vision_{block}",
            ),
        ]
    return tuple(parts)


def _vpt_start(init: str | Init | None) -> Learnable:
    return Learnable(init if init is not None else PatchUniform(0))
