"""Claude, through Anthropic's SDK: one call, or a batch of them. The SDK does not retry: that obeys our limits and our budget."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from esr.errors import JudgeError
from esr.judge.providers.call import Answer, Call, Stop
from esr.judge.providers.client import Outcome, ProviderBatch
from esr.judge.providers.keys import redacted, secrets
from esr.judge.providers.reach import CONNECT, unreachable
from esr.judge.providers.retry import Garbled, NotThere, TryLater, failure, hidden
from esr.params import JudgeParams

if TYPE_CHECKING:
    import anthropic

LOOKUP = 60.0
"""Seconds for a question about batches, and of silence while results arrive."""
HANDING, CHARACTERS_PER_SECOND = 60.0, 50_000.0
"""Seconds for handing over a batch, and what a slow line carries beside."""
PAGES = 50
"""Of the provider's list of batches, at most."""


class ClaudeClient:
    def __init__(self, judge: JudgeParams, key: str | None) -> None:
        import anthropic

        self._secrets = secrets(key, judge.api_base)
        self._timeout = judge.timeout or 600.0
        self._sdk = anthropic
        self._client = anthropic.AsyncAnthropic(
            api_key=key or "none", base_url=judge.api_base, max_retries=0, timeout=self._within(self._timeout)
        )

    def _within(self, seconds: float) -> "anthropic.Timeout":
        return self._sdk.Timeout(seconds, connect=min(CONNECT, seconds))

    async def complete(self, call: Call) -> Answer:
        began = time.monotonic()
        body = await self._sent(self._client.messages.with_raw_response.create(**parameters(call)), self._timeout)
        return answer(body, time.monotonic() - began)

    async def submit(self, calls: Sequence[tuple[str, Call]]) -> str:
        items = [{"custom_id": key, "params": parameters(call)} for key, call in calls]
        seconds = HANDING + sum(call.characters for _, call in calls) / CHARACTERS_PER_SECOND
        batches = self._client.messages.batches.with_raw_response
        body = await self._sent(batches.create(requests=cast(Any, items), timeout=self._within(seconds)), seconds)
        return provider_batch(body).provider_id

    async def state(self, provider_id: str) -> ProviderBatch:
        batches = self._client.messages.batches.with_raw_response
        return provider_batch(await self._sent(batches.retrieve(provider_id, timeout=self._within(LOOKUP)), LOOKUP))

    async def recent(self, since: float) -> list[ProviderBatch]:
        found: dict[str, ProviderBatch] = {}
        after: str | None = None
        for _ in range(PAGES):
            listed = self._client.messages.batches.with_raw_response.list(
                limit=100, timeout=self._within(LOOKUP), after_id=after if after else self._sdk.omit
            )
            page = json_object(await self._sent(listed, LOOKUP))
            data = page.get("data")
            batches = [provider_batch(json.dumps(item)) for item in data] if isinstance(data, list) else []
            new = [batch for batch in batches if batch.provider_id not in found]
            found |= {batch.provider_id: batch for batch in new}
            if not new or page.get("has_more") is not True or all(0 < batch.created_at < since for batch in new):
                break
            after = new[-1].provider_id
        return [batch for batch in found.values() if not 0 < batch.created_at < since]

    async def results(self, provider_id: str) -> AsyncGenerator[Outcome, None]:
        """Line by line; one that cannot be read costs only itself."""
        batches = self._client.messages.batches.with_streaming_response
        try:
            async with batches.results(provider_id, timeout=self._within(LOOKUP)) as response:
                rest = b""
                async for chunk in response.iter_bytes():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield outcome(redacted(line.decode("utf-8", "replace"), self._secrets))
                if rest.strip():
                    yield outcome(redacted(rest.decode("utf-8", "replace"), self._secrets))
        except self._sdk.APIError as error:
            raise self._failure(error) from None
        except self._sdk.AnthropicError as error:
            found = json_object(await self._sent(self._client.messages.batches.with_raw_response.retrieve(provider_id), LOOKUP))
            if found.get("archived_at"):
                raise NotThere("its results are no longer kept") from None
            raise TryLater(redacted(str(error), self._secrets)) from None
        except (OSError, EOFError, RuntimeError) as error:
            raise TryLater(redacted(str(error), self._secrets)) from None
        except Exception as error:
            if not type(error).__module__.startswith("httpx"):  # the stream breaks in the transport's own words
                raise
            raise TryLater(redacted(f"{type(error).__name__}: {error}", self._secrets)) from None

    async def _sent(self, call: Any, seconds: float) -> str:
        """The body of a success as text, whatever it holds."""
        try:
            async with asyncio.timeout(seconds):
                response = await call
                return redacted(cast(str, response.http_response.text), self._secrets)
        except TimeoutError:
            raise TryLater(f"no answer within {seconds:g} s") from None
        except self._sdk.APIError as error:
            raise self._failure(error) from None

    def _failure(self, error: "anthropic.APIError") -> Exception:
        response = getattr(error, "response", None)
        status = error.status_code if isinstance(error, self._sdk.APIStatusError) else None
        headers = dict(response.headers) if response is not None else None
        cause = f" ({error.__cause__})" if status is None and error.__cause__ else ""
        if status is None and (away := unreachable(error)):
            return away
        sent = type(error.__cause__).__name__ != "PoolTimeout"
        return failure(status, redacted(f"{error}{cause}", self._secrets), headers, sent=sent)

    async def close(self) -> None:
        await self._client.close()


def parameters(call: Call) -> dict[str, Any]:
    """No temperature: the interface takes none. Reproducibility comes from the stored answers."""
    found: dict[str, Any] = {
        "model": call.target.model,
        "max_tokens": call.target.max_tokens,
        "system": call.system,
        "messages": [{"role": message.role, "content": message.text} for message in call.messages],
    }
    if call.target.structured and call.schema is not None:
        found["output_config"] = {"format": {"type": "json_schema", "schema": call.schema}}
    return found


def json_object(body: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Garbled(body) from None
    if not isinstance(value, dict):
        raise Garbled(body)
    return value


def count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def answer(body: str, seconds: float, *, batch: bool = False) -> Answer:
    """Whatever shape it has: text that is not there is empty, and then it is malformed."""
    value = json_object(body)
    content, usage = value.get("content"), value.get("usage")
    if value.get("type") == "error":
        raise hidden(value.get("error"))
    if value.get("type") != "message" and not isinstance(content, list):
        raise Garbled(body)
    blocks = [b for b in content if isinstance(b, dict)] if isinstance(content, list) else []
    text = "".join(b["text"] for b in blocks if b.get("type") == "text" and isinstance(b.get("text"), str))
    usage = usage if isinstance(usage, dict) else {}
    stops: dict[object, Stop] = {"refusal": "refusal", "max_tokens": "length", "model_context_window_exceeded": "length"}
    reason = value.get("stop_reason")
    parts = [count(usage.get(name)) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")]
    return Answer(
        text=text,
        stop=stops.get(reason, "end") if isinstance(reason, str) else "end",
        model=str(value.get("model", "")),
        input_tokens=None if parts[0] is None else sum(part or 0 for part in parts),
        output_tokens=count(usage.get("output_tokens")),
        raw=body,
        batch=batch,
        seconds=seconds,
    )


def provider_batch(body: str) -> ProviderBatch:
    value = json_object(body)
    counts, name = value.get("request_counts"), value.get("id")
    if not isinstance(name, str) or not name:
        raise Garbled(body)
    try:
        created = datetime.fromisoformat(str(value.get("created_at")).replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        created = 0.0
    return ProviderBatch(
        provider_id=name,
        ended=value.get("processing_status") == "ended",
        n=sum(count(each) or 0 for each in counts.values()) if isinstance(counts, dict) else 0,
        created_at=created,
    )


def outcome(line: str) -> Outcome:
    """One line of a batch's results."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return Outcome("", None, line)
    key, result = (value.get("custom_id"), value.get("result")) if isinstance(value, dict) else (None, None)
    if not isinstance(key, str) or not key or not isinstance(result, dict):
        return Outcome("", None, line)
    if result.get("type") == "succeeded":
        try:
            return Outcome(key, answer(json.dumps(result.get("message")), 0.0, batch=True))
        except (Garbled, TryLater, JudgeError):
            return Outcome(key, None, "the body of the answer is not a message")
    error = result.get("error")
    inner = error.get("error") if isinstance(error, dict) else None
    kind = inner.get("type") if isinstance(inner, dict) else None
    return Outcome(key, None, str(result.get("type")), rejected=kind == "invalid_request_error")
