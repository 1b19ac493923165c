"""Methods that edit a subspace of hidden values."""

from __future__ import annotations

from graphprog.manipulations.interventions.subspace import Subspace
from graphprog.methods.records import Record, method
from graphprog.spec.checks import require_integer


@method(
    Record(
        "Wu et al.",
        "NeurIPS 2024",
        "hidden",
        "parametric",
        "identity",
        "L·(2·r·d + r)",
        "learning rate 9e-4, warm-up of 10 %, batches of 32, 6 or 12 epochs (LLaMA-7B, r = 8)",
    )
)
def loreft(
    at: str = "hidden[*]", rank: int = 4, first: int = 4, last: int = 4
) -> tuple[Subspace, ...]:
    """LoReFT of Wu et al., NeurIPS 2024: edit hidden values in a subspace, at some positions.

    ``h + Rᵀ(W h + b - R h)`` at the first and the last tokens that are there, with the same
    parameters at all of them (tied), and others at each layer. Per layer these are
    ``2 · rank · d + rank`` numbers.

    Args:
        at: outputs of the blocks to change, such as ``hidden[*]`` or ``hidden[8:12]``.
        rank: rank of the subspace.
        first: number of tokens from the start.
        last: number of tokens at the end.

    Raises:
        ProgramError: a number is negative, or both are 0.

    Example:
        >>> parts = gp.methods.loreft(rank=2, first=1, last=2)
        >>> task = gp.compile(language, gp.Program(parts))
        >>> edited = task(ids)
    """
    require_integer("loreft", "first", first, 0)
    require_integer("loreft", "last", last, 0 if first else 1)
    ranges = [f":{first}"] * (first > 0) + [f"-{last}:"] * (last > 0)
    return (Subspace(rank, at=at, positions=f"tokens[{','.join(ranges)}]", name="loreft"),)
