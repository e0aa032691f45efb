"""What is asked of a provider and what comes back: two values, nothing else.

A call's key is a hash of the judge, its parameters and the prompt. It names the stored answer, so the same question is paid
for once, whoever asks it. `round` is part of the key: a second opinion on a malformed answer is another question.
"""

import json
from dataclasses import dataclass, field
from typing import Literal

from esr.types import content_id

Kind = Literal[
    "grade", "grade-repair", "concreteness", "concreteness-repair", "regions", "regions-repair",
    "label", "label-repair", "detection", "detection-repair", "relevance", "relevance-repair",
    "example",
]  # fmt: skip
Stop = Literal["end", "length", "refusal"]
Schema = dict[str, object]


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Who is asked, and every parameter that can change an answer."""

    client: str
    model: str
    """Pinned id, as the provider knows it."""
    max_tokens: int
    structured: bool
    """The provider is given a JSON schema; otherwise the JSON stands between tags."""
    temperature: float | None
    """None: the provider's own, also where the interface takes none."""
    api_base: str | None
    """Without name, password and query, which may be secret."""

    @property
    def id(self) -> str:
        return f"{self.client}/{self.model}" + (f"@{self.api_base}" if self.api_base and self.client == "litellm" else "")

    @property
    def parameters(self) -> str:
        values = {"max_tokens": self.max_tokens, "structured": self.structured, "temperature": self.temperature}
        return json.dumps(values, sort_keys=True)

    @property
    def hash(self) -> str:
        return content_id("judge", self.id, self.parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    kind: Kind
    target: Target
    system: str
    messages: tuple[Message, ...]
    schema: Schema | None = field(default=None, compare=False)
    round: int = 0
    """0: the first time of asking."""

    @property
    def prompt_hash(self) -> str:
        messages = [[message.role, message.text] for message in self.messages]
        return content_id("prompt", self.system, messages, json.dumps(self.schema, sort_keys=True) if self.schema else None)

    @property
    def key(self) -> str:
        return content_id("answer", self.target.id, self.target.parameters, self.prompt_hash, self.round)

    @property
    def characters(self) -> int:
        return len(self.system) + sum(len(message.text) for message in self.messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a provider said, before anybody believes it."""

    text: str
    stop: Stop
    model: str
    """The model that the provider says answered."""
    input_tokens: int | None
    output_tokens: int | None
    raw: str
    """The provider's own JSON."""
    cost: float | None = None
    """US dollars; None: unknown."""
    batch: bool = False
    seconds: float = 0.0


def clean(text: str) -> str:
    """Lone surrogates, which no file can hold, become question marks, one for one, so that offsets stay."""
    return text.encode("utf-8", "replace").decode("utf-8")
