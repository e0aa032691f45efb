"""Providers' keys: from the environment, or from a .env beside the checkout or in the current folder. Never logged, never stored."""

import os
from pathlib import Path

from esr.errors import JudgeError
from esr.params import HOME, JudgeParams


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


def redacted(text: str, key: str | None) -> str:
    """Providers quote keys in their error messages."""
    return text.replace(key, "[key]") if key else text
