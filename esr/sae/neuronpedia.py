"""Neuronpedia's public exports of explanations, as labels.

A source's explanations lie under `v1/<model>/<source>/explanations/batch-N.jsonl.gz` of an S3 bucket that lists its keys, sizes and
MD5 sums (ETag) without a log-in. A line is one explanation: `index` (a string), `description`, `explanationModelName` and more. A
batch holds any latents, and a latent may have several explanations.
"""

import gzip
import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen
from xml.etree import ElementTree

from esr.errors import SaeError

BASE = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
TIMEOUT = 60.0
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Batch:
    """One file of an export."""

    key: str
    size: int
    etag: str

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    def whole(self, file: Path) -> bool:
        """The file has its size and, unless it was uploaded in parts, its MD5 sum."""
        if not file.is_file() or file.stat().st_size != self.size:
            return False
        with file.open("rb") as opened:
            return "-" in self.etag or hashlib.file_digest(opened, "md5").hexdigest() == self.etag


@dataclass(frozen=True, slots=True)
class Explanations:
    """One label a latent, with what wrote them."""

    labels: dict[int, str]
    writers: dict[str, int]
    """Model that explained: how many of the labels are its."""


def fetch(source: str, into: Path, *, base: str = BASE, tell: Callable[[int, int], None] = lambda done, total: None) -> list[Path]:
    """The batches of `model/source`, those that are whole in `into` not again; `tell` hears bytes done and bytes in all."""
    batches = listed(source, base)
    if not batches:
        raise SaeError(f"{base} has no explanations of {source!r}; correct the SAE's `neuronpedia` in params.yaml, as model/source")
    into.mkdir(parents=True, exist_ok=True)
    total, done = sum(batch.size for batch in batches), 0
    for batch in batches:
        file = into / batch.name
        if not batch.whole(file):
            _download(batch, file, base)
        done += batch.size
        tell(done, total)
    return [into / batch.name for batch in batches]


def listed(source: str, base: str = BASE) -> list[Batch]:
    """Every batch of a source, by number."""
    prefix, token = f"v1/{source}/explanations/", ""
    found: list[Batch] = []
    while True:
        asked = {"list-type": "2", "prefix": prefix, **({"continuation-token": token} if token else {})}
        try:
            page = ElementTree.fromstring(_read(f"{base}/?{urlencode(asked)}", base))
        except ElementTree.ParseError:
            raise SaeError(f"{base} answered with something that is no list of files; is it an S3 bucket?") from None
        for item in page.iter(f"{SPACE}Contents"):
            key, size, etag = (item.findtext(f"{SPACE}{name}") or "" for name in ("Key", "Size", "ETag"))
            if key.endswith(".jsonl.gz") and size.isdecimal():
                found.append(Batch(key, int(size), etag.strip('"')))
        token = page.findtext(f"{SPACE}NextContinuationToken") or ""
        if not token:
            return sorted(found, key=lambda batch: (len(batch.name), batch.name))


def _download(batch: Batch, file: Path, base: str) -> None:
    """To a file beside, which goes on where it was cut off, and then in one step to its name."""
    aside = file.with_name(f"{file.name}.part")
    have = aside.stat().st_size if aside.is_file() else 0
    if have < batch.size:
        headers = {"Range": f"bytes={have}-", "If-Match": f'"{batch.etag}"'} if have else {}
        with _asked(f"{base}/{quote(batch.key)}", base, headers) as answer:
            try:
                with aside.open("ab" if answer.status == 206 else "wb") as out:
                    while chunk := answer.read(CHUNK):
                        out.write(chunk)
            except (OSError, HTTPException) as error:
                raise _offline(base, error) from None
    if aside.stat().st_size < batch.size:
        raise SaeError(
            f"{batch.name} was cut off after {aside.stat().st_size:,} of {batch.size:,} bytes; the same line goes on from there"
        )
    if not batch.whole(aside):
        aside.unlink()
        raise SaeError(f"{batch.name} came with another checksum than {base} lists; the same line fetches it again")
    os.replace(aside, file)


def _read(url: str, base: str) -> bytes:
    with _asked(url, base, {}) as answer:
        try:
            return bytes(answer.read())
        except (OSError, HTTPException) as error:
            raise _offline(base, error) from None


def _asked(url: str, base: str, headers: Mapping[str, str]) -> HTTPResponse:
    try:
        answer: HTTPResponse = urlopen(Request(url, headers=dict(headers)), timeout=TIMEOUT)
    except HTTPError as error:
        raise SaeError(f"{base} answered {error.code} {error.reason} to {url[:300]!r}; try again later") from None
    except (OSError, HTTPException, ValueError) as error:
        raise _offline(base, error) from None
    return answer


def _offline(base: str, error: Exception) -> SaeError:
    why = getattr(error, "reason", None) or error or type(error).__name__
    return SaeError(
        f"{base} cannot be reached ({why}); what has come is kept and the same line goes on, or bring a file and "
        "`python -m esr labels import FILE`"
    )


def read(files: list[Path], *, d_sae: int) -> Explanations:
    """One explanation a latent: by the model that explained most latents, and of those the first."""
    found: dict[int, dict[str, str]] = {}
    for file in files:
        for index, writer, text in _lines(file, d_sae):
            found.setdefault(index, {}).setdefault(writer, text)
    explained = Counter(writer for by_writer in found.values() for writer in by_writer)
    best = sorted(explained, key=lambda writer: (-explained[writer], writer))
    chosen = {index: next(writer for writer in best if writer in by_writer) for index, by_writer in sorted(found.items())}
    return Explanations({index: found[index][writer] for index, writer in chosen.items()}, dict(Counter(chosen.values())))


def _lines(file: Path, d_sae: int) -> Iterator[tuple[int, str, str]]:
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for n, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                index, text = int(row["index"]), " ".join(str(row.get("description") or "").split())
                if not 0 <= index < d_sae:
                    raise SaeError(
                        f"{file.name} line {n} explains latent {index} and the SAE has {d_sae}; it is another SAE's export"
                    )
                if text:
                    yield index, str(row.get("explanationModelName") or "unknown"), text
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as error:
        if isinstance(error, SaeError):
            raise
        raise SaeError(
            f"{file.name} is no export of explanations ({type(error).__name__}: {error}); delete it and fetch again"
        ) from None
