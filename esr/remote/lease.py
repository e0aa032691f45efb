"""A lease on one piece of work, held over machines by an object in the bucket and renewed while its holder lives.

Who holds it stands in it, so that on the holder's own machine a dead process is seen at once; elsewhere it is free when it has not been
renewed for a while, by the server's clock. Work under a lease may be done twice without harm: what is lost with a lease is time.
"""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from esr.remote.bucket import Bucket, Unreachable
from esr.remote.owner import gone, named

log = logging.getLogger(__name__)

TERM = 30.0
"""Seconds after which a lease that was not renewed is free."""
RENEWALS = 4
"""In a term."""
LOOK = 0.5
"""Seconds between two looks at a lease that another holds."""
SAY = 30.0


@contextmanager
def leased(bucket: Bucket, name: str) -> Iterator[None]:
    """Waits until nobody else holds it. A bucket that does not answer leaves the work to whoever does it."""
    me = named()
    try:
        etag = _taken(bucket, name, me)
    except Unreachable as error:
        log.warning("%s; this piece of work may be done by another machine too", error)
        yield
        return
    ended = threading.Event()
    held = [etag]
    renewing = threading.Thread(target=_renew, args=(bucket, name, me, held, ended), name=f"lease-{name}", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        with suppress(Unreachable):
            if held[0] and bucket.replace(name, _says(me), held[0]):
                bucket.remove(name)


def _taken(bucket: Bucket, name: str, me: str) -> str:
    said = time.monotonic() + SAY
    while True:
        if etag := bucket.new(name, _says(me)):
            return etag
        found = bucket.find(name)
        if found is not None and (found.age > TERM or _dead(bucket, name)):
            if etag := bucket.replace(name, _says(me), found.etag):
                return etag
        elif found is not None:
            if time.monotonic() > said:
                log.info("%s holds %s; waiting", _holder(bucket, name), name)
                said = time.monotonic() + SAY
            time.sleep(LOOK)


def _renew(bucket: Bucket, name: str, me: str, held: list[str], ended: threading.Event) -> None:
    while not ended.wait(TERM / RENEWALS):
        with suppress(Unreachable):
            etag = bucket.replace(name, _says(me), held[0])
            if etag is None:
                log.info("the lease %s went to another machine, which thought this one dead", name)
                held[0] = ""
                return
            held[0] = etag


def _says(me: str) -> bytes:
    """Never the same twice, so that each renewal has an etag of its own."""
    return json.dumps({"holder": me, "at": time.time_ns()}).encode()


def _holder(bucket: Bucket, name: str) -> str:
    try:
        return str(json.loads(bucket.read(name))["holder"])
    except (OSError, ValueError, KeyError):
        return ""


def _dead(bucket: Bucket, name: str) -> bool:
    """Whether it is a process of this machine that is gone."""
    holder = _holder(bucket, name)
    return holder.startswith(f"{socket.gethostname()}:") and gone(holder, float("inf"))
