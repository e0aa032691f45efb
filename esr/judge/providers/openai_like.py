"""Every other provider, through litellm: OpenAI's interface and those that resemble it.

litellm builds the call and sends it; what came back is read here, from the provider's own JSON, because litellm turns an answer whose
token counts are odd, or whose error stands inside a success, into something else. It would also retry and fetch a price map from the
network on import if it were not told otherwise.
"""

import asyncio
import json
import logging
import os
import time
from typing import Any

from esr.errors import JudgeError
from esr.judge.providers.address import address
from esr.judge.providers.call import Answer, Call, Stop
from esr.judge.providers.claude import count, json_object
from esr.judge.providers.keys import redacted, secrets
from esr.judge.providers.reach import CONNECT, unreachable
from esr.judge.providers.retry import Garbled, TryLater, failure, hidden
from esr.params import JudgeParams


class LitellmClient:
    def __init__(self, judge: JudgeParams, key: str | None) -> None:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # otherwise it copies .env into the environment
        import httpx
        import litellm

        litellm.suppress_debug_info = True
        litellm.telemetry = False
        logging.getLogger("LiteLLM").setLevel(logging.WARNING)  # two lines a call otherwise, and with them pieces of the call
        self._litellm = litellm
        self._key, self._base = key, address(judge)
        self._secrets = secrets(key, self._base)
        self._timeout = judge.timeout or 600.0
        self._within = httpx.Timeout(self._timeout, connect=min(CONNECT, self._timeout))

    async def complete(self, call: Call) -> Answer:
        began, bodies = time.monotonic(), list[str]()

        def keep(event: dict[str, Any]) -> None:
            """litellm tells here what came back, before it makes anything of it."""
            if isinstance(body := event.get("original_response"), str):
                bodies.append(redacted(body, self._secrets))

        try:
            async with asyncio.timeout(self._timeout):
                response = await self._litellm.acompletion(**self._parameters(call), logger_fn=keep)
        except TimeoutError:
            raise TryLater(f"no answer within {self._timeout:g} s") from None
        except Exception as error:  # the boundary: litellm raises its own, openai's and httpx's errors
            if bodies and (found := answer(bodies[-1], time.monotonic() - began, lenient=True)):
                return found
            raise self._failure(error) from None
        body = bodies[-1] if bodies else redacted(json.dumps(response.model_dump(warnings=False), default=str), self._secrets)
        found = answer(body, time.monotonic() - began)
        assert found is not None
        return found

    def _parameters(self, call: Call) -> dict[str, Any]:
        target = call.target
        found: dict[str, Any] = {
            "model": target.model,
            "messages": [
                {"role": "system", "content": call.system},
                *({"role": message.role, "content": message.text} for message in call.messages),
            ],
            "max_tokens": target.max_tokens,
            "api_key": self._key or "none",
            "timeout": self._within,
            "num_retries": 0,
            "max_retries": 0,
        }
        if self._base:
            found["api_base"] = self._base
        if target.temperature is not None:
            found["temperature"] = target.temperature
        if target.structured and call.schema is not None:
            form = {"name": call.kind, "schema": call.schema, "strict": True}
            found["response_format"] = {"type": "json_schema", "json_schema": form}
        return found

    def _failure(self, error: Exception) -> Exception:
        if away := unreachable(error):  # it writes 500 for some of these
            return away
        status = getattr(error, "status_code", None)
        litellm = self._litellm
        if isinstance(error, litellm.Timeout | litellm.APIConnectionError | TimeoutError | ConnectionError):
            status = None  # it writes 408 and 500 for calls that no status came back for
        elif not isinstance(status, int):
            return JudgeError(redacted(f"litellm cannot make this call: {type(error).__name__}: {error}", self._secrets)[:300])
        if status is not None and status < 300:
            return Garbled(redacted(str(error), self._secrets))
        headers = getattr(error, "litellm_response_headers", None) or getattr(getattr(error, "response", None), "headers", None)
        return failure(status, redacted(str(error), self._secrets), dict(headers) if headers else None)

    async def close(self) -> None:
        """litellm's connections belong to the process, not to one judge."""


def answer(body: str, seconds: float, *, lenient: bool = False) -> Answer | None:
    """What the provider's JSON says, whatever its token counts look like. `lenient`: None where it is no success at all."""
    try:
        value = json_object(body)
    except Garbled:
        if lenient:
            return None
        raise
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    finish = choice.get("finish_reason")
    if error := value.get("error") or choice.get("error"):
        raise hidden(error)
    if value.get("type") == "error" or finish == "error":
        raise hidden({"message": "the provider broke off"})
    if not isinstance(message, dict):
        raise Garbled(body)
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    text = message.get("content")
    if isinstance(text, list):  # in parts, as some providers send it
        text = "".join(part["text"] for part in text if isinstance(part, dict) and isinstance(part.get("text"), str))
    stops: dict[object, Stop] = {"length": "length", "content_filter": "refusal"}
    return Answer(
        text=text if isinstance(text, str) else "",
        stop="refusal" if message.get("refusal") else stops.get(finish, "end") if isinstance(finish, str) else "end",
        model=str(value.get("model") or ""),
        input_tokens=count(usage.get("prompt_tokens")),
        output_tokens=count(usage.get("completion_tokens")),
        raw=body,
        seconds=seconds,
    )
