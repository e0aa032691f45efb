"""One large JSON object read piece by piece, with the very meaning that Python's json gives it.

The authors' files are one object whose `results_by_feature` holds nearly everything; its items come one at a time.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 18
LARGEST = 1 << 26
"""Characters that one value may have; beyond it the file is not one of the authors'."""

BLANK = re.compile(r"[ \t\n\r]*")
STREAMED = ("results_by_feature", "results")
"""Top-level lists whose items come one at a time."""
LIST: object = type("List", (), {"__repr__": lambda _: "LIST"})()
"""Stands for a streamed list."""


class NotJson(ValueError):
    """The text is not JSON; `cut`: because it ends too early."""

    def __init__(self, message: str, cut: bool = False) -> None:
        super().__init__(message)
        self.cut = cut


class Text:
    """The file's text from the present place on, read as far as needed."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.buffer, self.at, self.ended, self.passed = file, "", 0, False, 0
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.json = json.JSONDecoder()

    def more(self) -> bool:
        """Reads on, doubling what is at hand; False at the end of the file."""
        if self.ended:
            return False
        chunk = self.file.read(max(CHUNK, len(self.buffer) - self.at))
        self.ended = not chunk
        try:
            text = self.decoder.decode(chunk, final=self.ended)
        except UnicodeDecodeError as error:
            raise NotJson(f"it is not UTF-8 near byte {self.file.tell() - len(chunk) + error.start}", cut=self.ended) from None
        self.passed += self.at
        self.buffer, self.at = self.buffer[self.at :] + text, 0
        return True

    def peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            match = BLANK.match(self.buffer, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.more():
                return ""

    def take(self, wanted: str) -> str:
        """The next character, which must be one of `wanted`."""
        found = self.peek()
        if not found:
            raise NotJson(f"it ends where one of {wanted!r} should follow", cut=True)
        if found not in wanted:
            raise NotJson(f"{found!r} stands at character {self.passed + self.at} where one of {wanted!r} should")
        self.at += 1
        return found

    def value(self) -> object:
        """The next whole value."""
        self.peek()
        while True:
            try:
                found, end = self.json.raw_decode(self.buffer, self.at)
                if self.ended or (end < len(self.buffer) and not self._goes_on(found, end)):
                    self.at = end
                    return found
            except json.JSONDecodeError as error:
                near_end = error.pos >= len(self.buffer) - 16 or error.msg.startswith("Unterminated string")
                if not near_end:
                    raise NotJson(f"{error.msg} at character {self.passed + error.pos}") from None
                if self.ended:
                    raise NotJson(f"it ends in the middle of a value at character {self.passed + self.at}", cut=True) from None
            except (ValueError, RecursionError) as error:
                raise NotJson(f"{error} near character {self.passed + self.at}") from None
            if len(self.buffer) - self.at > LARGEST:
                raise NotJson(f"the value at character {self.passed + self.at} is larger than any in the authors' files")
            self.more()

    def _goes_on(self, found: object, end: int) -> bool:
        """Whether a number may have been cut where the buffer ends: `3.` of `3.5`, `1e` of `1e5`."""
        number = isinstance(found, (int, float)) and not isinstance(found, bool)
        return number and self.buffer[end] in ".eE+-" and len(self.buffer) - end < 8

    def items(self) -> Iterator[object]:
        """The items of the list that comes next."""
        self.take("[")
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            yield self.value()
            if self.take(",]") == "]":
                return


def entries(path: Path) -> Iterator[tuple[str, object]]:
    """The entries of the object in `path`; of a streamed list `(key, LIST)` and then each `(key, item)`. A file that is a list has the key ""."""
    with path.open("rb") as file:
        text = Text(file)
        if text.peek() == "[":
            yield "", LIST
            for item in text.items():
                yield "", item
        elif text.peek() == "{":
            yield from _members(text)
        else:
            raise NotJson("it holds neither an object nor a list", cut=not text.peek())
        if text.peek():
            raise NotJson(f"more follows after its end, at character {text.passed + text.at}")


def _members(text: Text) -> Iterator[tuple[str, object]]:
    text.take("{")
    if text.peek() == "}":
        text.at += 1
        return
    seen = set[str]()
    while True:
        if text.peek() != '"':
            text.take('"')
        key = str(text.value())
        if key in seen and key in ("", *STREAMED):
            raise NotJson(f"the key {key!r} stands twice")
        seen.add(key)
        text.take(":")
        if key in STREAMED and text.peek() == "[":
            yield key, LIST
            for item in text.items():
                yield key, item
        else:
            yield key, text.value()
        if text.take(",}") == "}":
            return
