"""Providers: the Anthropic SDK for Claude, litellm for everybody else. A request in, an answer out, or one of three failures.

Neither SDK is allowed to retry: retrying obeys our limits and our budget, so it is done outside (retry.py). Both are imported when
first used; litellm would fetch a price map from the network on import if it were not told to use its own.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from esr.errors import JudgeError
from esr.judge.keys import redacted
from esr.judge.request import Answer, Request, Stop
from esr.judge.retry import Busy, Garbled, failure
from esr.params import JudgeParams

if TYPE_CHECKING:
    import anthropic


class Client(Protocol):
    async def complete(self, request: Request) -> Answer:
        """One call on the wire, no more."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Handed:
    """What a provider knows about a batch."""

    provider_id: str
    ended: bool
    n: int
    created_at: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of a batch's results: an answer, or why there is none."""

    key: str
    answer: Answer | None
    reason: str = ""
    rejected: bool = False
    """The request itself is at fault; otherwise it may be handed over again."""


@runtime_checkable
class Bulk(Protocol):
    """What a provider with a batch interface can do beside."""

    async def submit(self, requests: Sequence[tuple[str, Request]]) -> str: ...
    async def state(self, provider_id: str) -> Handed: ...
    async def recent(self) -> list[Handed]: ...
    def results(self, provider_id: str) -> AsyncIterator[Outcome]: ...


def open_client(judge: JudgeParams, key: str | None) -> Client:
    return AnthropicClient(judge, key) if judge.client == "anthropic" else LitellmClient(judge, key)


class AnthropicClient:
    def __init__(self, judge: JudgeParams, key: str | None) -> None:
        import anthropic

        self._key = key
        self._timeout = judge.timeout or 600.0
        self._sdk = anthropic
        self._client = anthropic.AsyncAnthropic(
            api_key=key or "none", base_url=judge.api_base, max_retries=0, timeout=self._timeout
        )

    async def complete(self, request: Request) -> Answer:
        began = time.monotonic()
        body = await self._call(self._client.messages.with_raw_response.create(**_anthropic_call(request)))
        return _from_anthropic(body, time.monotonic() - began)

    async def submit(self, requests: Sequence[tuple[str, Request]]) -> str:
        calls = [{"custom_id": key, "params": _anthropic_call(request)} for key, request in requests]
        body = await self._call(self._client.messages.batches.with_raw_response.create(requests=cast(Any, calls)))
        return _handed(body).provider_id

    async def state(self, provider_id: str) -> Handed:
        return _handed(await self._call(self._client.messages.batches.with_raw_response.retrieve(provider_id)))

    async def recent(self) -> list[Handed]:
        body = await self._call(self._client.messages.batches.with_raw_response.list(limit=100))
        return [_handed(json.dumps(item)) for item in _object(body).get("data", [])]

    async def results(self, provider_id: str) -> AsyncIterator[Outcome]:
        try:
            async for line in await self._client.messages.batches.results(provider_id):
                if isinstance(outcome := _outcome(line.to_dict()), Outcome):
                    yield outcome
        except self._sdk.APIError as error:
            raise self._failure(error) from None
        except ValueError as error:
            raise Busy(f"a line of the batch's results is not JSON: {error}") from None

    async def _call(self, call: Any) -> str:
        """The body of a success as text, whatever it holds."""
        try:
            async with asyncio.timeout(self._timeout):
                response = await call
                return cast(str, response.http_response.text)
        except TimeoutError:
            raise Busy(f"no answer within {self._timeout:g} s") from None
        except self._sdk.APIError as error:
            raise self._failure(error) from None

    def _failure(self, error: "anthropic.APIError") -> Exception:
        response = getattr(error, "response", None)
        status = error.status_code if isinstance(error, self._sdk.APIStatusError) else None
        headers = dict(response.headers) if response is not None else None
        cause = f" ({error.__cause__})" if status is None and error.__cause__ else ""
        return failure(status, redacted(f"{error}{cause}", self._key), headers)

    async def close(self) -> None:
        await self._client.close()


class LitellmClient:
    def __init__(self, judge: JudgeParams, key: str | None) -> None:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # otherwise it copies .env into the environment
        import litellm

        litellm.suppress_debug_info = True
        litellm.telemetry = False
        logging.getLogger("LiteLLM").setLevel(logging.WARNING)  # two lines a call otherwise, and with them pieces of the call
        self._litellm = litellm
        self._key, self._base = key, judge.api_base
        self._timeout = judge.timeout or 600.0

    async def complete(self, request: Request) -> Answer:
        began = time.monotonic()
        target = request.target
        call: dict[str, Any] = {
            "model": target.model,
            "messages": [
                {"role": "system", "content": request.system},
                *({"role": t.role, "content": t.text} for t in request.turns),
            ],
            "max_tokens": target.max_tokens,
            "api_key": self._key or "none",
            "timeout": self._timeout,
            "num_retries": 0,
            "max_retries": 0,
        }
        if self._base:
            call["api_base"] = self._base
        if target.temperature is not None:
            call["temperature"] = target.temperature
        if target.structured and request.schema is not None:
            form = {"name": request.kind, "schema": request.schema, "strict": True}
            call["response_format"] = {"type": "json_schema", "json_schema": form}
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._litellm.acompletion(**call)
        except TimeoutError:
            raise Busy(f"no answer within {self._timeout:g} s") from None
        except Exception as error:  # the boundary: litellm raises its own, openai's and httpx's errors
            raise self._failure(error) from None
        return _from_openai(response, time.monotonic() - began)

    def _failure(self, error: Exception) -> Exception:
        status = getattr(error, "status_code", None)
        litellm = self._litellm
        if isinstance(error, litellm.Timeout | litellm.APIConnectionError | TimeoutError | ConnectionError):
            status = None  # it writes 408 and 500 for calls that no status came back for
        elif not isinstance(status, int):
            return JudgeError(redacted(f"litellm cannot make this call: {type(error).__name__}: {error}"[:300], self._key))
        if status is not None and status < 300:
            return Garbled(redacted(str(error), self._key))
        headers = getattr(error, "litellm_response_headers", None) or getattr(getattr(error, "response", None), "headers", None)
        return failure(status, redacted(str(error), self._key), dict(headers) if headers else None)

    async def close(self) -> None:
        """litellm's connections belong to the process, not to one judge."""


def _anthropic_call(request: Request) -> dict[str, Any]:
    """No temperature: the interface takes none. Reproducibility comes from the stored answers."""
    call: dict[str, Any] = {
        "model": request.target.model,
        "max_tokens": request.target.max_tokens,
        "system": request.system,
        "messages": [{"role": turn.role, "content": turn.text} for turn in request.turns],
    }
    if request.target.structured and request.schema is not None:
        call["output_config"] = {"format": {"type": "json_schema", "schema": request.schema}}
    return call


def _object(body: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Garbled(body) from None
    if not isinstance(value, dict):
        raise Garbled(body)
    return value


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _from_anthropic(body: str, seconds: float, *, batch: bool = False) -> Answer:
    """Whatever shape it has: text that is not there is empty, and then it is malformed."""
    value = _object(body)
    content, usage = value.get("content"), value.get("usage")
    if value.get("type") != "message" and not isinstance(content, list):
        raise Garbled(body)
    blocks = [b for b in content if isinstance(b, dict)] if isinstance(content, list) else []
    text = "".join(b["text"] for b in blocks if b.get("type") == "text" and isinstance(b.get("text"), str))
    usage = usage if isinstance(usage, dict) else {}
    stops: dict[object, Stop] = {"refusal": "refusal", "max_tokens": "length", "model_context_window_exceeded": "length"}
    reason = value.get("stop_reason")
    parts = [_count(usage.get(name)) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")]
    return Answer(
        text=text,
        stop=stops.get(reason, "end") if isinstance(reason, str) else "end",
        model=str(value.get("model", "")),
        input_tokens=None if parts[0] is None else sum(part or 0 for part in parts),
        output_tokens=_count(usage.get("output_tokens")),
        raw=body,
        batch=batch,
        seconds=seconds,
    )


def _from_openai(response: Any, seconds: float) -> Answer:
    raw = json.dumps(response.model_dump(warnings=False), default=str)  # its own JSON cannot hold a lone surrogate
    choice = response.choices[0] if response.choices else None
    message = getattr(choice, "message", None)
    text = getattr(message, "content", None)
    extra = getattr(message, "provider_specific_fields", None)
    refused = extra.get("refusal") if isinstance(extra, dict) else None
    finish = getattr(choice, "finish_reason", None)
    stops: dict[object, Stop] = {"length": "length", "content_filter": "refusal"}
    usage = getattr(response, "usage", None)
    return Answer(
        text=text if isinstance(text, str) else "",
        stop="refusal" if refused else stops.get(finish, "end"),
        model=str(response.model or ""),
        input_tokens=_count(getattr(usage, "prompt_tokens", None)),
        output_tokens=_count(getattr(usage, "completion_tokens", None)),
        raw=raw,
        seconds=seconds,
    )


def _handed(body: str) -> Handed:
    from datetime import datetime

    value = _object(body)
    counts, name = value.get("request_counts"), value.get("id")
    if not isinstance(name, str):
        raise Garbled(body)
    try:
        created = datetime.fromisoformat(str(value.get("created_at")).replace("Z", "+00:00")).timestamp()
    except ValueError:
        created = 0.0
    return Handed(
        provider_id=name,
        ended=value.get("processing_status") == "ended",
        n=sum(_count(count) or 0 for count in counts.values()) if isinstance(counts, dict) else 0,
        created_at=created,
    )


def _outcome(line: dict[str, Any]) -> Outcome | None:
    key, result = line.get("custom_id"), line.get("result")
    if not isinstance(key, str) or not isinstance(result, dict):
        return None
    if result.get("type") == "succeeded":
        try:
            return Outcome(key, _from_anthropic(json.dumps(result.get("message")), 0.0, batch=True))
        except Garbled:
            return Outcome(key, None, "the body of the answer is not a message")
    error = result.get("error")
    inner = error.get("error") if isinstance(error, dict) else None
    kind = inner.get("type") if isinstance(inner, dict) else None
    return Outcome(key, None, str(result.get("type")), rejected=kind == "invalid_request_error")
