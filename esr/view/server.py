"""The server behind the pages: on this machine alone, for reading alone, and live while a run writes.

A page of another site may not read it: the Host header has to name this machine, and what comes back is of the same origin alone.
"""

import logging
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from esr.errors import DataError, EsrError
from esr.store.snapshot import Snapshot
from esr.view import audit
from esr.view.address import HOST, PORT
from esr.view.data import PAGES
from esr.view.kept import Kept, encoded

log = logging.getLogger(__name__)

NAMES = [HOST, "localhost"]
"""Of this machine; under another name a page that means ill could have the browser read us."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FIGURE = re.compile(r"[\w@+.-]+\.(png|svg)")
FIRST = ("studies", "best", "experiments")
"""Data that every page begins with."""
LIVE = b'"use strict";\nesr.served();\n'
"""mode.js of a server; a bundle's says where its data lie."""


class Guarded:
    """Every response with the headers that keep others out."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                kept = [pair for pair in message.get("headers", []) if pair[0].decode().lower() not in HEADERS]
                message = {**message, "headers": [*kept, *given]}
            await send(message)

        await self.app(scope, receive, sent)


def pages() -> dict[str, bytes]:
    """The files of the pages by name."""
    return {file.name: file.read_bytes() for file in files("esr.view").joinpath("pages").iterdir() if file.is_file()}


def application(store: Snapshot) -> Starlette:
    """The server's routes over one store."""
    kept, shipped = Kept(store, PAGES), {**pages(), "mode.js": LIVE}

    async def page(request: Request) -> Response:
        name = request.path_params.get("name") or "index.html"
        if name not in shipped:
            return _said(f"there is no page {name[:200]!r}", 404)
        return Response(shipped[name], media_type=KINDS.get(Path(name).suffix, "text/plain"))

    async def figure(request: Request) -> Response:
        name = request.path_params["name"]
        file = store.root / "figures" / name
        if not FIGURE.fullmatch(name) or not file.is_file():
            return _said(f"there is no figure {name[:200]!r} in the store", 404)
        return FileResponse(file)

    async def data(request: Request) -> Response:
        name = request.path_params["name"]
        if name == "stamp":
            return Response(encoded(await run_in_threadpool(store.state)), media_type="application/json")
        if name not in PAGES:
            return _said(f"there are no data {name[:200]!r}; there are {', '.join(sorted(PAGES))}", 404)
        return await _answered(lambda: kept.answer(name, dict(request.query_params)))

    routes = [
        Route("/", page),
        *audit.routes(store),
        Route("/api/{name}", data),
        Route("/figures/{name}", figure),
        Route("/{name}", page),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Guarded), Middleware(TrustedHostMiddleware, allowed_hosts=NAMES)])
    app.state.warm = lambda: _warm(kept)
    return app


def _warm(kept: Kept) -> None:
    for name in FIRST:
        with suppress(EsrError):  # whoever asks for it is told
            kept.answer(name, {})


async def _answered(work: Callable[[], bytes]) -> Response:
    try:
        return Response(await run_in_threadpool(work), media_type="application/json")
    except EsrError as error:
        return _said(str(error), 404 if isinstance(error, DataError) else 500)
    except Exception:  # the page says so and the server goes on
        log.exception("a page's data cannot be told")
        return _said("the server failed at this; its terminal says how", 500)


def _said(message: str, status: int) -> Response:
    return Response(encoded({"error": message}), status, media_type="application/json")


def bound(port: int | None) -> socket.socket:
    """A socket on this machine alone: at this port, or without one at the usual or else any free one."""
    for one in (PORT, 0) if port is None else (port,):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, one))
            sock.listen(128)  # from here on nobody else has it, and a browser that is quicker than the server waits
            return sock
        except OSError as error:
            sock.close()
            reason = error.strerror
    raise DataError(f"port {port} of {HOST} cannot be used: {reason}; leave --port out for any that is free")


def serve(store: Snapshot, sock: socket.socket) -> None:
    """Until it is interrupted. What every page begins with is worked out at once, so that it is there when a browser asks."""
    app = application(store)
    threading.Thread(target=app.state.warm, daemon=True).start()
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[sock])
