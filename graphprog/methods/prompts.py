"""Prompt tuning by name: learned entries on the sequence.

The alignment is up to the task: ``LinearHead(at="features")`` for classification as in VPT, none
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


def prompt_tuning(tokens: int = 20, init: str | Init = "vocabulary") -> Parts:
    """Prompt tuning (Lester et al., EMNLP 2021): learned tokens in front of the embedded text.

    Args:
        tokens: how many; n·d parameters.
        init: ``vocabulary``, ``normal``, or the embeddings of words that describe the task.

    Example:
        >>> parts = gp.methods.prompt_tuning(tokens=4, init="vocabulary")
        >>> task = gp.compile(language, gp.Program(parts))
    """
    prompt = Concatenative(at="tokens", length=tokens, init=init, name="prompt")
    return (prompt,)


def p_tuning(tokens: int = 20, hidden: int = 128, encoder: str = "mlp") -> Parts:
    """P-tuning (Liu et al., 2021): prompt tokens out of a small network, folded when saved.

    Args:
        tokens: how many.
        hidden: width of the network.
        encoder: ``mlp`` of three layers, or ``lstm`` with two layers behind.

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
    """VPT-shallow (Jia et al., ECCV 2022): learned tokens behind the class token.

    Args:
        tokens: how many; n·d parameters.
        init: what they start from; None is the paper's U(±√(6/(3p²+d))) for patches of 16.
        offset: 1 behind the class token, 0 where there is none, -1 at the end.
        at: where the sequence enters the blocks.

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
    """VPT-deep (Jia et al., ECCV 2022): fresh tokens in the same slots in front of every block.

    Args:
        tokens: how many a block; L·n·d parameters.
        init: what they start from; None is the paper's U(±√(6/(3p²+d))) for patches of 16.
        offset: 1 behind the class token, 0 where there is none, -1 at the end.
        tower: of a model that has several, such as ``vision``.
        depth: in front of how many blocks from the first on; None is all.
        shared: the same tokens in front of every block.

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
    """MaPLe (Khattak et al., CVPR 2023): text prompts, and vision prompts that are maps of them.

    Text prompts stand behind the first token, vision prompts at the end; both are replaced in
    front of the blocks up to ``depth``, the vision ones by a linear map of the text ones.

    Args:
        tokens: how many.
        depth: in front of how many blocks of either tower.
        text: name of the text tower.
        vision: name of the vision tower.

    Example:
        >>> parts = gp.methods.maple(tokens=2, depth=3)
        >>> program = gp.Program(parts)  # for a model with a text and a vision tower
        >>> parts[0].name, parts[0].length
        ('text', 2)
    """
    parts: list[Manipulation] = [
        Concatenative(at=f"{text}.embedding", length=tokens, offset=1, name="text"),
        Concatenative(
            at=f"{vision}.embedding",
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
    return Learnable(init if init is not None else PatchUniform(16))
