"""Between vLLM's server and its clients: every route either steers as it is asked to and says what was applied, or answers 400.

An ASGI middleware around the whole app, so it knows no route by name. It reads a request's body as the route reads it, behind
vLLM's own authentication; whether a route kept the spec shows in what reached the engine.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from esr.engine.plugin import wire
from esr.engine.plugin.desk import Desk
from esr.engine.plugin.tally import NOW, Tally
from esr.errors import EngineError, SpecError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LAST = re.compile(
    rb'"finish_reason":\s*"|"choices":\s*\[\]|"type":\s*"(?:message_(?:delta|stop)|response\.(?:completed|incomplete))"'
)
"""In an event of a stream that may be its last."""


class Door:
    """Named to vLLM's server as a middleware by the plugin."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            await self._post(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _post(self, scope: Any, receive: Receive, send: Send) -> None:
        client = getattr(scope["app"].state, "engine_client", None)
        tally = Tally(getattr(client, "vllm_config", None), owner(scope))
        reply = Reply(tally, desk_of(scope["app"], client), send)
        token = NOW.set(tally)
        try:
            await self.app(scope, reply.reading(receive, header(scope, b"content-type")), reply.send)
        finally:
            NOW.reset(token)
            await reply.close()


class Reply:
    """A reply under way, held back until it is known what was applied."""

    def __init__(self, tally: Tally, desk: Desk, send: Send) -> None:
        self.tally, self.desk, self.plain = tally, desk, send
        self.body = bytearray()
        """Of the request."""
        self.asked = False
        self.start: Message | None = None
        self.streams = self.ended = self.failed = False
        self.held = b""
        """Of the reply."""

    def reading(self, receive: Receive, kind: str) -> Receive:
        async def read() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not self.asked:
                self.body += message.get("body", b"")
                if not message.get("more_body"):
                    self._check(kind)
            return message

        return read

    def _check(self, kind: str) -> None:
        from fastapi import HTTPException

        try:
            self.asked = wire.asks(bytes(self.body), kind)
        except SpecError as error:
            raise HTTPException(400, str(error)) from None  # which FastAPI lets through while it reads a body
        self.body.clear()

    async def send(self, message: Message) -> None:
        if not (self.asked or self.tally.sequences) or self.ended:
            if not self.ended:
                await self.plain(message)
        elif message["type"] == "http.response.start":
            self.start = message
            self.failed = message["status"] >= 400
            self.streams = header(message, b"content-type").startswith("text/event-stream")
        elif message["type"] == "http.response.body":
            await self._body(bytes(message.get("body", b"")), more=bool(message.get("more_body")))
        else:
            await self.plain(message)

    async def _body(self, chunk: bytes, *, more: bool) -> None:
        if self.start is not None and self.start["status"] >= 300:
            await self._go(chunk, more=more)
        elif self.start is not None and not self.tally.sequences and (chunk or not more):
            await self._refuse(chunk)
        elif self.streams:
            await self._stream(chunk, more=more)
        else:
            self.held += chunk
            if not more:
                await self._whole()

    async def _whole(self) -> None:
        try:
            applied = await self.tally.applied(self.desk)
        except EngineError as error:
            await self._fail(500, "InternalServerError", str(error))
            return
        await self._go(spliced(self.held, applied), more=False, length=True)

    async def _stream(self, chunk: bytes, *, more: bool) -> None:
        """The last event of a stream waits for the count; all before it go at once."""
        held, self.held = self.held, b""
        ends = not more or b"data: [DONE]" in chunk
        if not ends and LAST.search(chunk):
            await self._go(held, more=True)
            self.held = chunk
        elif not ends or self.tally.counted:
            await self._go(held + chunk, more=more)
        else:
            try:
                held = streamed(held or chunk, await self.tally.applied(self.desk)) + (chunk if held else b"")
            except EngineError as error:
                held = b"data: " + json.dumps(_error(500, "InternalServerError", str(error))).encode() + b"\n\n"
                more, self.ended = False, True
            await self._go(held, more=more)

    async def _refuse(self, chunk: bytes) -> None:
        """A route that answers without having asked the engine for what the request asked for."""
        said = json.loads(found[0]) if (found := re.findall(rb'(?m)^(?:data: )?(\{"error".*\})\s*$', chunk)) else {}
        error = said.get("error") if isinstance(said, dict) else None
        if isinstance(error, dict) and "message" in error:
            await self._fail(int(error.get("code") or 400), str(error.get("type")), str(error["message"]))
        else:
            await self._fail(
                400, "BadRequestError", "this route drops the steering spec, so nothing was steered; leave it out here"
            )

    async def _fail(self, status: int, type: str, text: str) -> None:
        assert self.start is not None
        self.failed = True
        self.start = {**self.start, "status": status, "headers": [(b"content-type", b"application/json")]}
        await self._go(json.dumps(_error(status, type, text)).encode(), more=False, length=True)
        self.ended = True

    async def _go(self, body: bytes, *, more: bool, length: bool = False) -> None:
        if self.start is not None:
            start, self.start = self.start, None
            if length:
                headers = [(key, value) for key, value in start["headers"] if key.lower() != b"content-length"]
                start = {**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
            await self.plain(start)
        if body or not more:
            await self.plain({"type": "http.response.body", "body": body, "more_body": more})

    async def close(self) -> None:
        if self.tally.sequences:
            await self.tally.leave(self.desk, failed=self.failed)


def desk_of(app: Any, client: Any) -> Desk:
    """One for all requests of an app, so that those who wait share calls."""
    desk: Desk | None = getattr(app.state, "esr_desk", None)
    if desk is None:
        desk = app.state.esr_desk = Desk(client)
    return desk


def owner(scope: Any) -> str:
    """Who asks: whoever has this key. Without keys everybody is the same."""
    return "http-" + hashlib.sha256(header(scope, b"authorization").encode()).hexdigest()[:16]


def header(message: Any, name: bytes) -> str:
    return next((bytes(value).decode("latin-1") for key, value in message.get("headers", ()) if bytes(key).lower() == name), "")


def spliced(body: bytes, applied: dict[str, Any]) -> bytes:
    """A JSON object with one more field; every other byte as it was."""
    text = body.rstrip()
    if not text.startswith(b"{") and not text.startswith(b"data: {"):
        return body
    comma = b"" if text.removeprefix(b"data: ")[1:-1].strip() == b"" else b", "
    return text[:-1] + comma + b'"applied": ' + json.dumps(applied).encode() + b"}"


def streamed(events: bytes, applied: dict[str, Any]) -> bytes:
    """The same in the last event that is an object."""
    lines = events.split(b"\n")
    for i in reversed(range(len(lines))):
        if lines[i].startswith(b"data: {"):
            lines[i] = spliced(lines[i], applied)
            break
    return b"\n".join(lines)


def _error(status: int, type: str, text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": type, "param": "sae", "code": status}}
