"""Completions as OpenAI's interface has them: ``/v1/completions`` and ``/v1/models``."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from graphprog.errors import GraphprogError
from graphprog.generation.output import GeneratedText, GeneratedToken
from graphprog.serve.language import LanguageModel, Writing
from graphprog.serve.limits import RequestError

_IGNORED = {"user", "stream_options", "metadata", "store"}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "echo": (False, None),
    "logprobs": (None,),
    "best_of": (1, None),
    "suffix": (None, ""),
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "logit_bias": (None, {}),
}
"""Options that are not implemented, and the values at which they change nothing."""


class CompletionRequest(BaseModel):
    """Prompts, and how to continue them; ``model`` is a program or the model itself."""

    model_config = ConfigDict(extra="allow")

    model: str
    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(16, ge=1)
    temperature: float | None = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(1.0, gt=0, le=1)
    n: int | None = Field(1, ge=1, le=128)
    stop: str | list[str] | None = None
    seed: int | None = None
    stream: bool | None = False

    def prompts(self) -> list[Any]:
        """Return the prompts as a list."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


def router(model: LanguageModel) -> APIRouter:
    """Return the routes ``/v1/models`` and ``/v1/completions``."""
    routes = APIRouter(tags=["completions"])
    started = int(time.time())

    def entry(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": started, "owned_by": "graphprog"}

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the model and its programs."""
        names = [model.name, *(info.name for info in model.programs)]
        return {"object": "list", "data": [entry(name) for name in names]}

    @routes.get("/v1/models/{name}")
    async def one(name: str) -> dict[str, Any]:
        """Show a model."""
        model.decoder(name)
        return entry(name)

    @routes.post("/v1/completions", response_model=None)
    async def complete(asked: CompletionRequest) -> JSONResponse | StreamingResponse:
        """Continue prompts."""
        _require_neutral(asked)
        writing = _writing(model, asked)
        ident = f"cmpl-{secrets.token_hex(12)}"
        head = {"id": ident, "object": "text_completion", "created": int(time.time())}
        head["model"] = asked.model
        if asked.stream:
            return StreamingResponse(
                _streamed(model, writing, head), media_type="text/event-stream"
            )
        texts = await model.write(writing)
        choices = [_choice(number, text.text, text) for number, text in enumerate(texts)]
        return JSONResponse({**head, "choices": choices, "usage": _usage(writing, texts)})

    return routes


def _require_neutral(asked: CompletionRequest) -> None:
    for name, value in (asked.model_extra or {}).items():
        if name not in _IGNORED and value not in _NEUTRAL.get(name, ()):
            raise RequestError(400, f"{name[:80]}: this server has no such option")


def _writing(model: LanguageModel, asked: CompletionRequest) -> Writing:
    """Return what a request asks to be written."""
    limits, stop = model.limits, asked.stop or []
    prompts, samples = asked.prompts(), asked.n or 1
    tokens = 16 if asked.max_tokens is None else asked.max_tokens
    if tokens > limits.tokens:
        raise RequestError(400, f"max_tokens={tokens}, but a text may have {limits.tokens}")
    temperature = 1.0 if asked.temperature is None else asked.temperature
    if samples > 1 and not temperature:
        raise RequestError(400, f"n={samples} with temperature=0: all texts would be the same")
    return Writing(
        decoder=model.decoder(asked.model),
        prompts=prompts,
        max_new_tokens=tokens,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        temperature=temperature,
        top_p=None if asked.top_p in (None, 1.0) else asked.top_p,
        seed=secrets.randbelow(2**31) if asked.seed is None else asked.seed,
        samples=samples,
    )


def _choice(number: int, text: str, whole: GeneratedText | None) -> dict[str, Any]:
    reason = None if whole is None else "length" if whole.ended == "length" else "stop"
    return {"index": number, "text": text, "logprobs": None, "finish_reason": reason}


def _usage(writing: Writing, texts: list[GeneratedText]) -> dict[str, int]:
    """Count tokens; the text of a program around a prompt is not counted."""
    tokens = writing.decoder.prompt_format
    before = 0
    for prompt in writing.prompts:
        if not isinstance(prompt, str):
            before += len(prompt)
        elif tokens.prompt is not None:
            before += len(tokens.prompt.tokens.plain(prompt))
    after = sum(len(text.ids) for text in texts)
    return {
        "prompt_tokens": before,
        "completion_tokens": after,
        "total_tokens": before + after,
    }


class _ClientGoneError(Exception):
    """The client of a stream has gone away."""


async def _streamed(
    model: LanguageModel, writing: Writing, head: dict[str, Any]
) -> AsyncIterator[str]:
    """Yield the events of a stream: the text of each token, then how each text ended."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[GeneratedToken | None]()
    gone = False

    def put(token: GeneratedToken) -> None:
        if gone:
            raise _ClientGoneError
        loop.call_soon_threadsafe(queue.put_nowait, token)

    fields = {**vars(writing), "streamer": put}
    task = loop.create_task(model.write(Writing(**fields)))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (token := await queue.get()) is not None:
            if token.text:
                yield _event({**head, "choices": [_choice(token.row, token.text, None)]})
        for number, text in enumerate(await task):
            yield _event({**head, "choices": [_choice(number, "", text)]})
    except GraphprogError as error:
        yield _event({"error": {"message": str(error), "type": "invalid_request_error"}})
    finally:
        gone = True
        task.cancel()
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
