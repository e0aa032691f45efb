"""Whole objects by name in a store that speaks S3. Of two writers of one name the first is kept, which the server sees to.

Address and keys are those of every S3 program: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the machine's role.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from esr.errors import StoreError

URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/*")
TRIES, CONNECT, READ = 4, 5.0, 60.0
"""Of one request, and seconds of a try."""
REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
"""What a server says to the second of two writers."""


class Unreachable(StoreError):
    """The bucket did not do what it was asked."""


@dataclass(frozen=True, slots=True)
class Object:
    size: int
    etag: str
    age: float
    """Seconds since it was written, by the server's clock."""


class Bucket:
    """`s3://bucket/prefix`; names are below the prefix. Any thread and process may use it."""

    def __init__(self, url: str) -> None:
        match = URL.fullmatch(url)
        if match is None:
            raise StoreError(f"{url!r} is no object store; write s3://bucket/prefix")
        self.url, self.bucket = url.rstrip("/"), match[1]
        self.prefix = f"{match[2]}/" if match[2] else ""
        self._clients: dict[int, Any] = {}
        self._opening = threading.Lock()

    def objects(self, below: str) -> dict[str, Object]:
        """What lies below a folder, by name, complete and as of now."""
        found: dict[str, Object] = {}
        with self._asked("list"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + below):
                now = _date(page)
                for one in page.get("Contents", ()):
                    age = (now - one["LastModified"]).total_seconds()
                    found[one["Key"].removeprefix(self.prefix)] = Object(one["Size"], one["ETag"], age)
        return found

    def find(self, name: str) -> Object | None:
        try:
            with self._asked("look at", name):
                head = self._client.head_object(Bucket=self.bucket, Key=self.prefix + name)
                return Object(head["ContentLength"], head["ETag"], (_date(head) - head["LastModified"]).total_seconds())
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """FileNotFoundError where it is not there."""
        with self._asked("read", name):
            content: bytes = self._client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()
            return content

    def new(self, name: str, content: bytes) -> str | None:
        """Its etag; None when somebody was first."""
        return self._put(name, content, IfNoneMatch="*")

    def replace(self, name: str, content: bytes, etag: str) -> str | None:
        """The etag of what stands now in the place of that one; None when another stands there."""
        try:
            return self._put(name, content, IfMatch=etag)
        except FileNotFoundError:
            return None

    def keep(self, name: str, content: bytes) -> None:
        """Whatever stands there."""
        self._put(name, content)

    def remove(self, name: str) -> None:
        with self._asked("remove", name):
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def check(self) -> None:
        """That it can be written, and keeps the first of two writers: a server that overwrites would lose results unseen."""
        name = f"probe/{os.getpid()}-{os.urandom(4).hex()}"
        first = self.new(name, b"first")
        second = self.new(name, b"second")
        other = self.replace(name, b"third", '"0123456789abcdef0123456789abcdef"')
        self.remove(name)
        if first is None or second is not None or other is not None:
            raise StoreError(
                f"the server of {self.url} overwrites what another has written (it ignores If-None-Match or If-Match), so results would "
                "be lost unseen; a newer server, or a store on a shared file system, would do"
            )

    def _put(self, name: str, content: bytes, **condition: str) -> str | None:
        from botocore.exceptions import ClientError

        with self._asked("write", name):
            try:
                done = self._client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=content, **condition)
            except ClientError as error:
                if _code(error) in REFUSED:
                    return None
                raise
            etag: str = done["ETag"]
            return etag

    @property
    def _client(self) -> Any:
        """One a process: connections do not outlive a fork."""
        with self._opening:
            if os.getpid() not in self._clients:
                import boto3
                from botocore.config import Config

                session = boto3.session.Session()
                retries = {"mode": "standard", "total_max_attempts": TRIES}
                config = Config(retries=retries, connect_timeout=CONNECT, read_timeout=READ, max_pool_connections=16)
                region = session.region_name or "us-east-1"
                self._clients[os.getpid()] = session.client("s3", region_name=region, config=config)
            return self._clients[os.getpid()]

    @contextmanager
    def _asked(self, what: str, name: str = "") -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        place = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except NoCredentialsError:
            raise Unreachable(f"{self.url} wants keys and none are set; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
        except ClientError as error:
            code = _code(error)
            if code in ("NoSuchKey", "404"):
                raise FileNotFoundError(place) from None
            if code == "NoSuchBucket":
                raise Unreachable(f"{self.url}: there is no bucket {self.bucket!r}; make it, or correct ESR_STORE") from None
            raise Unreachable(f"{self.url} did not let us {what} {name or 'what is there'}: {_said(error)}") from None
        except BotoCoreError as error:
            raise Unreachable(f"{self.url} cannot be reached to {what} {name or 'what is there'}: {_said(error)}") from None


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _date(answer: Any) -> datetime:
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
