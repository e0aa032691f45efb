"""Where a judge answers: as params.yaml says, else as the environment does, else where its provider's software stands by itself."""

import os
import socket
from urllib.parse import urlsplit

from esr.judge.providers.keys import dotenv
from esr.params import JudgeParams

VARIABLES = {
    "anthropic": ("ANTHROPIC_BASE_URL",),
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "hosted_vllm": ("HOSTED_VLLM_API_BASE",),
}
"""By which the providers' own libraries are sent elsewhere."""
SERVED = "hosted_vllm"
"""The provider of a model that one serves oneself with `vllm serve`."""
USUAL = {SERVED: "http://127.0.0.1:8000/v1"}
"""Where `vllm serve` listens unless it is told otherwise."""
SOON = 2.0
"""Seconds for a connection to a server of one's own."""


def provider(judge: JudgeParams) -> str:
    return judge.client if judge.client == "anthropic" else judge.model.partition("/")[0]


def variable(judge: JudgeParams) -> str | None:
    """The variable that sends it elsewhere; None: none is set, or params.yaml has the word."""
    names = VARIABLES.get(provider(judge), ()) if judge.api_base is None else ()
    return next((name for name in names if _value(judge, name)), None)


def _value(judge: JudgeParams, name: str) -> str:
    """Other providers' libraries look into the environment themselves, and into no .env."""
    return os.environ.get(name) or (dotenv().get(name, "") if provider(judge) == SERVED else "")


def address(judge: JudgeParams) -> str | None:
    """None: the provider's library knows it."""
    if judge.api_base is not None:
        return judge.api_base
    if provider(judge) not in USUAL:
        return None
    named = variable(judge)
    return _value(judge, named) if named else USUAL[provider(judge)]


def nobody(judge: JudgeParams) -> str | None:
    """Of a judge that one serves oneself: why no connection to it comes about; None: one does, or it is another's to serve."""
    if provider(judge) != SERVED:
        return None
    parts = urlsplit(address(judge) or "")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=SOON).close()
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None
