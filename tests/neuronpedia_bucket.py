"""A local stand-in for Neuronpedia's bucket of exports: a list of keys in pages, ETags, ranges."""

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 2
"""Keys that one answer lists."""


def line(index: int, text: str, writer: str = "gpt-4o-mini") -> dict[str, Any]:
    return {
        "modelId": "gemma-2-9b",
        "layer": "26-gemmascope-res-16k",
        "index": str(index),
        "description": text,
        "authorId": "someone",
        "explanationModelName": writer,
        "typeName": "oai_token-act-pair",
        "embedding": [0.25, -0.5],
    }


@dataclass
class Bucket:
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Key and range of every file that was asked for."""
    cut: set[str] = field(default_factory=set)
    """Keys whose next answer breaks off half-way."""
    spoilt: set[str] = field(default_factory=set)
    """Keys whose bytes are not those of their ETag."""
    url: str = ""

    def put(self, source: str, batches: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        for n, rows in enumerate(batches):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            self.files[f"v1/{source}/explanations/batch-{n}.jsonl.gz"] = gzip.compress(text.encode(), mtime=0)

    def listing(self, prefix: str, token: str) -> bytes:
        keys = sorted(key for key in self.files if key.startswith(prefix))
        start = int(token or 0)
        shown, more = keys[start : start + PAGE], start + PAGE < len(keys)
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><ETag>&quot;{hashlib.md5(self.files[key]).hexdigest()}&quot;</ETag>"
            f"<Size>{len(self.files[key])}</Size></Contents>"
            for key in shown
        )
        onward = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{onward}{items}</ListBucketResult>"
        ).encode()


@contextmanager
def served(bucket: Bucket) -> Iterator[Bucket]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            key, query = unquote(parts.path.lstrip("/")), parse_qs(parts.query)
            if not key:
                self._send(200, bucket.listing(query["prefix"][0], query.get("continuation-token", [""])[0]))
                return
            span = self.headers.get("Range", "")
            bucket.asked.append((key, span))
            if key not in bucket.files:
                self._send(404, b"")
                return
            data = bucket.files[key]
            if key in bucket.spoilt:
                data = bytes(len(data))
            start = int(span.removeprefix("bytes=").rstrip("-") or 0)
            cut = len(data) // 2 if key in bucket.cut else None
            bucket.cut.discard(key)
            self._send(206 if span else 200, data[start:], cut)

        def _send(self, status: int, body: bytes, cut: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    bucket.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
