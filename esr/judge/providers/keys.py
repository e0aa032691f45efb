"""Providers' keys: from the environment, or from a .env beside the checkout or in the current folder. Never logged, never stored."""

import base64
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from esr.errors import JudgeError
from esr.params import HOME, JudgeParams

SHORTEST = 8
"""Characters that a value in an address's query must have to be taken for a secret."""
DATE = re.compile(r"\d{4}-\d\d-\d\d(?:-preview)?")
"""An interface's version is no secret."""


def key_for(judge: JudgeParams) -> str | None:
    """The key of a judge's provider; None where params.yaml says that none is needed."""
    if judge.key_env is None:
        return None
    value = os.environ.get(judge.key_env) or dotenv().get(judge.key_env)
    if not value:
        raise JudgeError(
            f"judge {judge.name!r} ({judge.model}) needs a key and {judge.key_env} is not set; "
            f"put it in the environment or in {HOME / '.env'}, or choose `judge: lexical`, which needs none"
        )
    return value


def dotenv() -> dict[str, str]:
    """NAME=value lines; comments, quotes and a leading `export` are understood, expansion is not."""
    values: dict[str, str] = {}
    for file in (HOME / ".env", Path.cwd() / ".env"):
        if not file.is_file():
            continue
        for line in file.read_text(encoding="utf-8").splitlines():
            name, equals, value = line.strip().removeprefix("export ").partition("=")
            if equals and not name.startswith("#"):
                values[name.strip()] = value.strip().strip("'\"")
    return values


def secrets(key: str | None, address: str | None = None) -> tuple[str, ...]:
    """What must reach no file, no log and no message: the key, and what an address holds of the kind, longest first."""
    found = {key} if key else set()
    if address:
        parts = urlsplit(address)
        values = [value for pair in parts.query.split("&") if (value := pair.rpartition("=")[2])]
        found |= {value for value in values if len(value) >= SHORTEST and not DATE.fullmatch(value)}
        if parts.password:
            sent = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
            found |= {parts.password, base64.b64encode(sent.encode()).decode()}
    spelt = {form for one in found for form in (one, unquote(one))}
    return tuple(sorted(spelt, key=lambda one: (-len(one), one)))


def redacted(text: str, secret: Sequence[str]) -> str:
    """Providers quote keys, in their error messages and elsewhere, and not always letter by letter."""
    for one in secret:
        if _plainest(one) in text or r"\u00" in text:
            text = _quoted(one).sub("[key]", text)
    return text


@cache
def _plainest(secret: str) -> str:
    """The longest piece that only numbers for letters would hide; looked for first, as that is quick."""
    return max(re.split(r"[\W_]+", secret, flags=re.ASCII), key=len)


@cache
def _quoted(secret: str) -> re.Pattern[str]:
    """A secret in whatever form JSON or an address gives it, each character in its own."""
    return re.compile("".join(_forms(sign) for sign in secret))


def _forms(sign: str) -> str:
    escaped = re.escape(sign) if sign.isalnum() else r"\\*" + re.escape(sign)
    percent = "".join(f"%{byte:02x}" for byte in sign.encode("utf-8", "surrogatepass"))
    return rf"(?:{escaped}|(?i:{percent}|\\+u{ord(sign):04x}))"


def public(address: str | None) -> str | None:
    """An address without the name, password, query and fragment that may be secret."""
    if address is None:
        return None
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
