"""Limits of a server, and the error of requests that are beyond them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from graphprog.errors import BackendError, GraphprogError


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Attributes:
        body: bytes of a request.
        memory: bytes of all requests that are being read or answered.
        batch: rows of a request, and rows that are computed together.
        queue: rows that wait to be computed.
        wait: seconds that a request waits for others to be computed with it.
        seconds: for a client to send a request, and for its rows to be computed.
        connections: open at the same time.
        length: of an axis that varies, such as the tokens of a text; and of a prompt.
        tokens: of a generated text.
        pixels: of an image.
    """

    body: int = 2**25
    memory: int = 2**29
    batch: int = 32
    queue: int = 1024
    wait: float = 0.002
    seconds: float = 30.0
    connections: int = 1000
    length: int = 4096
    tokens: int = 1024
    pixels: int = 2**25

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if name == "wait" and value == 0:
                continue
            if not 0 < value < float("inf"):
                raise BackendError(f"limit {name}={value} is not a number above 0")
        if self.memory < self.body:
            raise BackendError(
                f"limit memory={self.memory} is less than body={self.body}: no request of that "
                "size would be read"
            )


class RequestError(GraphprogError):
    """A request that is refused.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, status: int, what: str, remedies: Sequence[str] = ()) -> None:
        super().__init__(what, remedies)
        self.status = status
