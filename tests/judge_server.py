"""A provider that misbehaves on schedule: Anthropic messages and batches, and OpenAI chat, over real HTTP on this machine.

    python tests/judge_server.py --port 8811 --latency 2 --jitter 1 --limit 20 --faults 0.2 --log calls.jsonl

prints one line with its address and serves until it is ended; ANTHROPIC_BASE_URL or `api_base` points a judge at it (OpenAI under
/v1). A judged reply is read from between <reply> and </reply>, numbered or not, of the last user turn that has one. The answer quotes it and is the
same for the same reply. Each request may be answered by a fault instead: by plan (a list, first come first served), or drawn from
a seeded hash of the request's text and how often it was seen, so that the share is kept whatever the order.
"""

import argparse
import hashlib
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HTTP_FAULTS = ("429", "429-after", "500", "529", "cut", "body", "hang")
RARE_FAULTS = ("key-in-body", "429-year-99999")
"""No answer arrives."""
ANSWER_FAULTS = ("not-json", "types", "140", "empty", "string", "refusal", "truncated", "lies")
"""An answer arrives, and cannot be used as it is."""
ERRORS = ("overlooks",)
"""An answer that is in order and wrong: a restart that is there is not seen. `errs 0.9 0.985 a` is a judge of that sensitivity and
specificity by the restart detector, whose errors are drawn by a hash of `a` and the reply."""
STARTS_OVER = re.compile(r"(?i)\bwait,|\blet me (?:try|start)|\bsorry, i")


@dataclass
class Schedule:
    """What a server does; every field may be changed while it runs."""

    latency: float = 0.0
    jitter: float = 0.0
    limit: float = 0.0
    """Requests a second that are accepted; beyond, 429 with retry-after. 0: any number."""
    faults: float = 0.0
    """Share of requests that meet a fault."""
    kinds: tuple[str, ...] = HTTP_FAULTS[:-1] + ANSWER_FAULTS
    plan: list[str] = field(default_factory=list)
    """Faults for the next requests, `ok` among them; used up before the share counts."""
    refuse: int = 0
    """Answer every request with this status."""
    retry_after: float = 0.3
    hang: float = 30.0
    batch_seconds: float = 0.3
    batch_plan: list[str] = field(default_factory=list)
    """Per batch: `ok`, `expire`, `duplicate`, `error`, `drop`; `bad-line` and `cut` spoil the first reading of its results, `always-bad` every one."""
    receipt_plan: list[str] = field(default_factory=list)
    """Per hand-over: `ok`; taken, and then the connection is `reset` or a `500` comes; `refused`: a 500, and it was not taken."""
    receipts: float = 0.0
    """Share of hand-overs, beyond the plan, whose batch is taken and whose receipt is lost."""
    unacceptable: str = ""
    """A batch that holds a call with this text is refused as a whole."""
    created_late: float = 0.0
    """Seconds until a batch that was taken is in the list."""


class Provider(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    allow_reuse_address = True

    def __init__(self, port: int = 0, schedule: Schedule | None = None, log: Path | None = None) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.schedule = schedule or Schedule()
        self.requests: list[dict[str, Any]] = []
        self.seen: Counter[str] = Counter()
        self.batches: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()
        self.flying = 0
        self.most_flying = 0
        self._file = log.open("a") if log else None
        self._room = 0.0
        self._room_at = time.monotonic()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> "Provider":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        if self._file:
            self._file.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked was killed; nothing to say about it."""

    def record(self, **entry: Any) -> None:
        with self.lock:
            self.requests.append(entry)
            if self._file:
                self._file.write(json.dumps(entry) + "\n")
                self._file.flush()

    def answered(self) -> Counter[str]:
        """How often each question was answered in full."""
        with self.lock:
            return Counter(entry["question"] for entry in self.requests if entry["delivered"])

    def over_limit(self) -> bool:
        limit = self.schedule.limit
        if not limit:
            return False
        with self.lock:
            now = time.monotonic()
            self._room = min(max(1.0, limit * 0.6), self._room + (now - self._room_at) * limit)
            self._room_at = now
            if self._room < 1:
                return True
            self._room -= 1
            return False

    def fault(self, question: str) -> str:
        with self.lock:
            self.seen[question] += 1
            if self.schedule.plan:
                return self.schedule.plan.pop(0)
            draw = random.Random(f"{question}/{self.seen[question]}")
        return draw.choice(self.schedule.kinds) if draw.random() < self.schedule.faults else "ok"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Provider

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        with self.server.lock:
            self.server.flying += 1
            self.server.most_flying = max(self.server.most_flying, self.server.flying)
        try:
            self._post(json.loads(body))
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self.server.lock:
                self.server.flying -= 1

    def _post(self, call: dict[str, Any]) -> None:
        schedule, path = self.server.schedule, self.path.partition("?")[0]
        question = named(call.get("messages", []))
        arrived = time.time()

        def note(status: int, what: str, delivered: bool = False) -> None:
            self.server.record(
                at=arrived, done=time.time(), path=path, question=question, status=status, what=what, delivered=delivered
            )

        if schedule.refuse:
            note(schedule.refuse, "refused")
            return self._error(schedule.refuse, "authentication_error" if schedule.refuse == 401 else "invalid_request_error")
        complaint = self._complaint(call if "messages" in call else {})
        if complaint:
            note(400, complaint)
            return self._error(400, "invalid_request_error", complaint)
        if path.endswith("/batches"):
            return self._create_batch(call, note)
        if self.server.over_limit():
            note(429, "over the limit")
            return self._error(429, "rate_limit_error", headers={"retry-after": "0.5"})
        what = self.server.fault(question)
        time.sleep(max(0.0, schedule.latency + random.uniform(-schedule.jitter, schedule.jitter)))
        if what in HTTP_FAULTS + RARE_FAULTS:
            note(int(what[:3]) if what[:3].isdigit() else 200, what)
            return self._http_fault(what)
        value = openai_body(call, what) if "chat/completions" in path else message(call, what)
        value = odd(value, what, self.headers)
        self._send(200, json.dumps(value).encode())
        note(200, what, delivered=True)
        return None

    def _complaint(self, call: dict[str, Any]) -> str:
        if self.path.startswith("/v1/messages"):
            if self.headers.get("anthropic-version") == "2026-10-21" and {"temperature", "top_p", "top_k"} & set(call):
                return "temperature, top_p and top_k are not accepted"
            if not self.headers.get("x-api-key") and not self.headers.get("authorization"):
                return "no key"
        for turn in call.get("messages", []):
            if not turn.get("content") or not str(turn["content"]).strip():
                return "messages must have content"
        return ""

    def _http_fault(self, what: str) -> None:
        schedule = self.server.schedule
        if what == "429":
            return self._error(429, "rate_limit_error")
        if what == "429-after":
            return self._error(429, "rate_limit_error", headers={"retry-after": str(schedule.retry_after)})
        if what in ("500", "529"):
            return self._error(int(what), "overloaded_error" if what == "529" else "api_error")
        if what == "hang":
            time.sleep(schedule.hang)
        if what == "key-in-body":
            key = self.headers.get("x-api-key") or self.headers.get("authorization") or ""
            return self._send(200, f"<html>who is {key}?".encode())
        if what == "429-year-99999":
            return self._error(429, "rate_limit_error", headers={"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT"})
        if what == "body":
            return self._send(200, b'{"type": "message", "content": [{"ty')
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n" + b'{"id": "msg')
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
        return None

    def _create_batch(self, call: dict[str, Any], note: Callable[..., None]) -> None:
        schedule = self.server.schedule
        if schedule.unacceptable and schedule.unacceptable in json.dumps(call):
            note(400, "unacceptable")
            return self._error(400, "invalid_request_error")
        with self.server.lock:
            fate = schedule.receipt_plan.pop(0) if schedule.receipt_plan else "ok"
            if fate == "ok" and random.random() < schedule.receipts:
                fate = "reset"
            what = schedule.batch_plan.pop(0) if schedule.batch_plan and fate != "refused" else "ok"
            name = f"msgbatch_{len(self.server.batches):06d}"
            batch = {"id": name, "requests": call["requests"], "created": time.time(), "what": what, "read": 0}
            if fate != "refused":
                self.server.batches[name] = batch
        time.sleep(schedule.latency)
        note(500 if fate in ("500", "refused") else 200, f"batch {what}" if fate == "ok" else f"batch {fate}")
        if fate in ("500", "refused"):
            return self._error(500, "api_error")
        if fate == "reset":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        self._send(200, json.dumps(self._batch(batch)).encode())
        return None

    def _batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        ended = time.time() > batch["created"] + self.server.schedule.batch_seconds
        stamp = datetime.fromtimestamp(batch["created"], UTC).isoformat().replace("+00:00", "Z")
        n = len(batch["requests"])
        counts = {"processing": 0 if ended else n, "succeeded": n if ended else 0, "errored": 0, "canceled": 0, "expired": 0}
        return {
            "id": batch["id"], "type": "message_batch", "processing_status": "ended" if ended else "in_progress", "request_counts": counts,
            "created_at": stamp, "expires_at": stamp, "ended_at": stamp if ended else None,
            "results_url": f"{self.server.url}/v1/messages/batches/{batch['id']}/results" if ended else None,
            "archived_at": None, "cancel_initiated_at": None,
        }  # fmt: skip

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        tail = path.removeprefix("/v1/messages/batches").strip("/")
        if path == "/log":
            with self.server.lock:
                return self._send(200, json.dumps(self.server.requests).encode())
        if not path.startswith("/v1/messages/batches"):
            return self._error(404, "not_found_error")
        if not tail:
            seen = time.time() - self.server.schedule.created_late
            data = [self._batch(batch) for batch in reversed(list(self.server.batches.values())) if batch["created"] <= seen]
            return self._send(200, json.dumps({"data": data, "has_more": False, "first_id": None, "last_id": None}).encode())
        name, _, results = tail.partition("/")
        batch = self.server.batches.get(name)
        if batch is None:
            return self._error(404, "not_found_error")
        if not results:
            return self._send(200, json.dumps(self._batch(batch)).encode())
        lines = [line for item in batch["requests"] for line in self._line(item, batch["what"])]
        random.Random(name).shuffle(lines)
        texts = [json.dumps(line) for line in lines]
        batch["read"] += 1
        if batch["what"] == "bad-line" and batch["read"] == 1:
            texts[1] = texts[1][:-40]
        if batch["what"] == "always-bad":
            texts[1] = texts[1][:-40]
        body = "\n".join(texts).encode()
        if batch["what"] == "cut" and batch["read"] == 1:
            half = body[: len(body) // 2]
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/x-jsonl\r\ncontent-length: %d\r\n\r\n" % len(body) + half
            )
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        return self._send(200, body, kind="application/x-jsonl")

    def _line(self, item: dict[str, Any], what: str) -> list[dict[str, Any]]:
        key = item["custom_id"]
        lucky = int(hashlib.sha256(key.encode()).hexdigest(), 16) % 2 == 0
        if what == "drop" and lucky:
            return []
        if what == "expire" and lucky:
            return [{"custom_id": key, "result": {"type": "expired"}}]
        if what == "error" and lucky:
            error = {"type": "error", "error": {"type": "api_error", "message": "inside"}}
            return [{"custom_id": key, "result": {"type": "errored", "error": error}}]
        question = named(item["params"]["messages"])
        fault = self.server.fault(question)
        fault = fault if fault in ANSWER_FAULTS else "ok"
        line = {"custom_id": key, "result": {"type": "succeeded", "message": message(item["params"], fault)}}
        self.server.record(
            at=time.time(), done=time.time(), path="batch", question=question, status=200, what=fault, delivered=True
        )
        other = {"custom_id": key, "result": {"type": "succeeded", "message": message(item["params"], "140")}}
        return [line, other] if what == "duplicate" else [line]

    def _error(self, status: int, kind: str, message: str = "", headers: dict[str, str] | None = None) -> None:
        body = {"type": "error", "error": {"type": kind, "message": message or kind, "code": str(status)}}
        self._send(status, json.dumps(body).encode(), headers=headers)

    def _send(self, status: int, body: bytes, kind: str = "application/json", headers: dict[str, str] | None = None) -> None:
        lines = [f"HTTP/1.1 {status} x", f"content-type: {kind}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        self.wfile.flush()


def named(turns: list[dict[str, Any]]) -> str:
    """One name for one question, however it is asked."""
    asked = [[turn["role"], turn["content"]] for turn in turns if turn["role"] != "system"]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]


def message(call: dict[str, Any], what: str) -> dict[str, Any]:
    text = answer_text(call["messages"], call.get("system"), what, tagged="output_config" not in call)
    stop = {"refusal": "refusal", "truncated": "max_tokens"}.get(what, "end_turn")
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": call["model"], "stop_reason": stop, "stop_sequence": None,
        "content": [] if what == "refusal" else [{"type": "text", "text": text}],
        "usage": {"input_tokens": len(json.dumps(call)) // 4, "output_tokens": max(1, len(text) // 4)},
    }  # fmt: skip


def openai_body(call: dict[str, Any], what: str) -> dict[str, Any]:
    text = answer_text(call["messages"], None, what, tagged="response_format" not in call)
    refused = what == "refusal"
    said = {"role": "assistant", "content": None if refused else text, "refusal": "I cannot help with that." if refused else None}
    finish = "length" if what == "truncated" else "stop"
    n_in, n_out = len(json.dumps(call)) // 4, max(1, len(text) // 4)
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()), "model": call["model"],
        "choices": [{"index": 0, "message": said, "finish_reason": finish, "logprobs": None}],
        "usage": {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out},
    }  # fmt: skip


def odd(value: dict[str, Any], what: str, headers: Any) -> Any:
    """A success that holds something else, or more than it should."""
    broken_off = [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "error"}]
    key = headers.get("x-api-key") or (headers.get("authorization") or "").removeprefix("Bearer ")
    if what.startswith("usage-"):
        return value | {
            "usage": {
                "usage-text": "none",
                "usage-list": [1],
                "usage-null": None,
                "usage-odd": {"prompt_tokens": "x", "input_tokens": -1},
            }[what]
        }
    if what == "echo":
        return value | {"system_fingerprint": key, "id": f"for {key}"}
    changed: dict[str, Any] = {
        "inner-error": {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
        "inner-code": {"error": {"message": "upstream", "code": 502}},
        "finish-error": value | {"choices": broken_off},
        "no-choices": value | {"choices": [], "content": None, "type": "x"},
    }
    return changed.get(what, value)


def answer_text(turns: list[dict[str, Any]], system: object, what: str, *, tagged: bool) -> str:
    """What an honest judge says, bent by the fault."""
    user = next(turn["content"] for turn in turns if turn["role"] == "user")
    asked = json.dumps([turns, system])
    value: dict[str, Any]
    if "You write training data" in asked:
        value = example(user, asked)
    elif "fires_on" in asked:
        value = {"label": commonest(user)}
    elif "passage_a" in asked:
        value = {name: 100 if "coffee" in between(user, name) else 0 for name in ("passage_a", "passage_b")}
        return json.dumps(value) if not tagged else f"<json>{json.dumps(value)}</json>"
    elif "description" in asked and "passage" in asked:
        value = {"active": active(user)}
    elif "off_topic" in asked and "on_topic" in asked:
        value = regions(between(user, "reply"))
    elif "ratings" in asked:
        value = ratings(user)
    else:
        reply = between(user, "reply")
        value = erring(reply, what) if what.startswith("errs ") else graded(reply)
    value = bent(value, what)
    text = json.dumps(value, ensure_ascii=False)
    if what == "not-json":
        text = text.replace('"', "'")
    if what == "surrogate":
        text = "\ud800" + text
    if what == "truncated":
        text = text[: len(text) // 2]
    return f"It went like this.\n<json>{text}</json>" if tagged and what != "truncated" else text


def between(text: str, name: str) -> str:
    """What stands between the first tag of that name, numbered or not, and the last like it."""
    found = re.search(rf"<{name}((?:-\d+)?)>\n(.*)\n</{name}\1>", text, re.DOTALL)
    return found[2] if found else ""


def graded(reply: str) -> dict[str, Any]:
    """One attempt, or two where the reply starts over; scores from a hash of the text."""
    found = STARTS_OVER.search(reply, 1)
    parts = [reply[: found.start()], reply[found.start() :]] if found else [reply]
    parts = [part.strip() for part in parts if part.strip()]
    attempts = [attempt(part) for part in parts]
    return {"feedback": "So it is.", "attempts": attempts, "no_attempt": not attempts}


def regions(reply: str) -> dict[str, Any]:
    found = STARTS_OVER.search(reply, 1)
    at = found.start() if found else 0
    after = reply.find(". ", at) + 2
    return {"off_topic": reply[:40], "correction": reply[at : at + 30], "on_topic": reply[after : after + 40]}


def ratings(user: str) -> dict[str, Any]:
    lines = re.findall(r"^(\d+)\. (.*)$", user, re.MULTILINE)
    return {"ratings": [{"number": int(n), "justification": "so", "rating": len(label) % 101} for n, label in lines]}


def commonest(user: str) -> str:
    """The word that most of the passages hold; of equals the longest."""
    rows = [json.loads(line.partition(". ")[2]) for line in user.splitlines()]
    held = Counter(word for row in rows for word in set(re.findall(r"[a-z]{4,}", "".join(row.values()).lower())))
    return max(held, key=lambda word: (held[word], len(word), word), default="")


def active(user: str) -> list[int]:
    """The passages that hold a word of the description."""
    first, *rows = user.splitlines()
    passages = [json.loads(line.partition(". ")[2]).lower() for line in rows]
    return [i for i, text in enumerate(passages, 1) if any(word in text for word in json.loads(first).split())]


def example(question: str, asked: str) -> dict[str, Any]:
    """A passage about the subject that was asked for, an acknowledgement and an answer; or an answer."""
    subject = re.search(r"that is about (.+?) at first", asked)
    value = {"answer": f"This is how it is done: {question}"}
    if subject is None:
        return value
    return {"off_topic": f"Passage about {subject[1]}. It goes on.", "acknowledgement": "Wait, that is not it."} | value


def erring(reply: str, what: str) -> dict[str, Any]:
    """What a judge says that overlooks some of the restarts which the restart detector sees, and invents others."""
    from esr.judge.lexical.restarts import restarts

    _, sensitivity, specificity, seed = what.split()
    draw = random.Random(f"{seed}/{reply}").random()
    found = restarts(reply)
    at = found[0].start if found else reply.find(" ", len(reply) // 2)
    sees = (draw < float(sensitivity)) if found else (draw >= float(specificity))
    parts = [part.strip() for part in (reply[:at], reply[at:]) if part.strip()] if sees and at > 0 else [reply.strip()]
    return {"feedback": "So it is.", "attempts": [attempt(part) for part in parts if part], "no_attempt": not reply.strip()}


def attempt(part: str) -> dict[str, Any]:
    return {"attempt_text": part, "score": int(hashlib.sha256(part.encode()).hexdigest(), 16) % 101}


def bent(value: dict[str, Any], what: str) -> dict[str, Any]:
    listed = next(name for name in ("attempts", "ratings", "off_topic", "answer", "label", "active") if name in value)
    if listed in ("label", "active"):
        return value | {listed: {"type": "nothing"}} if what in ("types", "140", "string", "empty") else value
    if what == "empty":
        return value | {listed: []}
    if what == "overlooks" and listed == "attempts":
        return value | {listed: value[listed][:1]}
    if not isinstance(value[listed], list) or not value[listed]:
        return value | {listed: 7} if what in ("types", "140", "string") else value
    number = "score" if listed == "attempts" else "rating"
    first = value[listed][0]
    changes: dict[str, dict[str, Any]] = {
        "types": {number: None}, "140": {number: 140}, "string": {number: "85"},
        "lies": {"attempt_text": "The moon is made of a cheese that nobody ordered in this reply."} if listed == "attempts" else {},
    }  # fmt: skip
    return value | {listed: [first | changes.get(what, {}), *value[listed][1:]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before an answer")
    parser.add_argument("--jitter", type=float, default=0.0, help="seconds, more or less")
    parser.add_argument("--limit", type=float, default=0.0, help="requests a second that are accepted; 0: any number")
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that meet a fault")
    parser.add_argument("--log", type=Path, default=None, help="one JSON line per request")
    arguments = parser.parse_args()
    schedule = Schedule(latency=arguments.latency, jitter=arguments.jitter, limit=arguments.limit, faults=arguments.faults)
    provider = Provider(arguments.port, schedule, arguments.log)
    print(provider.url, flush=True)
    provider.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
