"""Prompt tuning methods: learned entries in the sequence.

The alignment depends on the task: ``LinearHead(at="features")`` for classification as in VPT, none
for language modeling.
"""

from __future__ import annotations

from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.prompts.concatenative import Concatenative
from graphprog.manipulations.prompts.replacement import Replacement
from graphprog.spec.checks import require_choice
from graphprog.values.base import Learnable
from graphprog.values.entries import Derived, Shared
from graphprog.values.initializers import Init, PatchUniform
from graphprog.values.reparameterized import LSTM, MLP

Parts = tuple[Manipulation, ...]
"""The manipulations of a method."""


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
