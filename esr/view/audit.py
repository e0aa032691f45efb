"""Labels given at the screen: what is asked of the audit's page, and the one thing that the server takes in.

A label comes with the page's own origin and a token of this server's, which no page of another site can read; it is durable before it
is answered.
"""

import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from esr.count.audit import LABELS
from esr.errors import DataError, EsrError
from esr.params import load
from esr.store import Store
from esr.study import audit
from esr.study.audit import WITHDRAWN, Label
from esr.view.data import audit as told
from esr.view.kept import encoded

TOKEN = "x-esr-token"
LENGTHS = {"sheet": 40, "item": 40, "author": 60, "label": 12, "reason": 2000}
"""Characters at most of what a label is made of."""
BODY = 16_384
"""Bytes of one at most."""


class Desk:
    """Sheets of one store, and who may label them: whoever holds the token."""

    def __init__(self, store: Store) -> None:
        self.store = Store(store.root)
        self.token = secrets.token_urlsafe(24)
        self._items: dict[str, frozenset[str]] = {}

    def ask(self, address: Mapping[str, str]) -> dict[str, Any]:
        """Never kept: what was labelled a moment ago is there."""
        name, author = address.get("sheet") or "", (address.get("author") or "").strip()
        if not name:
            return {"token": self.token, "labels": list(LABELS), "sheets": told.sheets(self.store)}
        if address.get("agreed"):
            return told.agreed(self.store, name, author, load().protocol.confidence)
        return {"token": self.token, **told.sheet(self.store, name, author)}

    def keep(self, body: bytes) -> dict[str, Any]:
        """One label, durable when this returns."""
        given = _read(body)
        label = Label(given["item"], given["author"].strip(), given["label"], given["reason"].strip())
        if label.label not in (*LABELS, WITHDRAWN):
            raise DataError(f"the label is {label.label!r}; it should be one of {', '.join(LABELS)}, or {WITHDRAWN}")
        if not label.author:
            raise DataError("the label has no author; say your name above the sheet")
        if label.item not in self.items(given["sheet"]):
            raise DataError(f"the item {label.item!r} is not on the sheet {given['sheet']!r} of this store")
        audit.keep(self.store, given["sheet"], [label])
        return {"kept": label.item}

    def items(self, sheet: str) -> frozenset[str]:
        """A sheet that was drawn stays as it is."""
        found = self._items.get(sheet) or audit.items(self.store, sheet)
        if found:
            self._items[sheet] = found
        return found


def _read(body: bytes) -> dict[str, str]:
    try:
        found = json.loads(body)
    except ValueError:
        raise DataError("a label is JSON, and this is none") from None
    if not isinstance(found, dict) or set(found) != set(LENGTHS) or not all(isinstance(value, str) for value in found.values()):
        raise DataError(f"a label is made of the texts {', '.join(LENGTHS)} and nothing else")
    for name, most in LENGTHS.items():
        if len(found[name]) > most:
            raise DataError(f"{name} has {len(found[name]):,} characters; it should have {most:,} at most")
    return found


def routes(store: Store) -> list[Route]:
    desk = Desk(store)

    async def ask(request: Request) -> Response:
        return await _answered(lambda: desk.ask(dict(request.query_params)))

    async def keep(request: Request) -> Response:
        if request.headers.get("origin") != f"{request.url.scheme}://{request.headers['host']}":
            return _said("a label is taken from this server's own page alone", 403)
        if not hmac.compare_digest(request.headers.get(TOKEN, "").encode(), desk.token.encode()):
            return _said("the server was started anew since the page was opened; the page asks for its token again", 409)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > BODY:
                return _said(f"a label has {BODY:,} bytes at most", 413)
        return await _answered(lambda: desk.keep(body))

    return [Route("/api/audit", ask, methods=["GET"]), Route("/api/audit", keep, methods=["POST"])]


async def _answered(work: Callable[[], dict[str, Any]]) -> Response:
    try:
        return Response(encoded(await run_in_threadpool(work)), media_type="application/json")
    except EsrError as error:
        return _said(str(error), 400 if isinstance(error, DataError) else 500)
    except OSError as error:
        return _said(f"the label is not kept: {error.strerror or error}", 500)


def _said(message: str, status: int) -> Response:
    return Response(encoded({"error": message}), status, media_type="application/json")
