"""The texts that labels are made from: the model's own unsteered replies, or a person's file; every second of a group is held out.

A text is kept as the token ids that the model wrote, so what is read later is what was written and not its text cut anew. Texts about
one subject, or answering one question, are a group; both halves have some of it, in different words.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esr import prompts
from esr.errors import DataError
from esr.study import steer
from esr.study.plan import stream
from esr.types import Trial, content_id
from esr.whole import placing

if TYPE_CHECKING:
    from esr.study.study import Study

log = logging.getLogger(__name__)
Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    group: str
    """The subject or the question that it is about."""
    held: bool
    """Kept for scoring; no label is made from it."""
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    """Its own tokens, after the prompt's."""
    text: str
    spans: tuple[Span, ...]
    """Of each token in `text`, by character."""


def trials(study: "Study", subjects: Sequence[str], replies: int, max_tokens: int | None = None) -> list[Trial]:
    """Unsteered: every evaluation and discovery question, and every request about every subject; as many replies to each group.
    `max_tokens` of each; None: as many as the threshold search's."""
    requests = prompts.lines("label_requests")
    asked = [(subject, [prompts.fill(request, subject=subject) for request in requests]) for subject in subjects]
    asked += [(question, [question] * len(requests)) for question in (*prompts.evaluation(), *prompts.discovery())]
    rng, found = stream(study.params, "labelling"), []
    sampling, n_seeds = study.params.sampling(study.model, search=True), study.params.protocol.n_seeds
    sampling = replace(sampling, max_tokens=max_tokens or sampling.max_tokens)
    for group, prompt in ((group, prompt) for group, each in asked for _ in range(replies) for prompt in each):
        found.append(
            Trial(
                model=study.model, weights=study.weights, meaning=study.meaning, prompt=prompt, question=group,
                prompt_format=study.params.protocol.prompt_format, seed=rng.randrange(n_seeds), sampling=sampling,
            )
        )  # fmt: skip
    return found


def own(study: "Study", asked: Sequence[Trial]) -> Iterator[Text]:
    """The replies to these trials; what the store lacks is generated first."""
    steer.replies(study, asked, "texts")
    query = "select trial_id, text, token_ids from replies where trial_id in (select unnest(?))"
    stored = {row["trial_id"]: row for row in study.store.sql(query, [[trial.id for trial in asked]]).to_pylist()}
    rendered: dict[str, tuple[int, ...]] = {}
    seen: Counter[str] = Counter()
    for trial in asked:
        row = stored[trial.id]
        if trial.prompt not in rendered:
            rendered[trial.prompt] = study.engine.render(trial.prompt, trial.prompt_format)
        ids = tuple(row["token_ids"])
        seen[trial.question] += 1
        if row["text"].strip():
            yield Text(
                group=trial.question, held=seen[trial.question] % 2 == 0, prompt_ids=rendered[trial.prompt], ids=ids, text=row["text"],
                spans=tuple(study.engine.offsets(ids)),
            )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One text of a person's file."""

    text: str
    prompt: str = ""
    """The user turn that it answers."""
    group: str = ""
    """What it is about, where the file says so."""


def given(path: Path) -> list[Given]:
    """A text a line, or JSON lines with `text` and perhaps `prompt` and `group`."""
    if not path.is_file():
        raise DataError(f"no texts at {str(path)!r}; a file with a text a line, or JSONL with the field text, would do")
    try:
        written = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 near byte {error.start}; save it as UTF-8") from None
    if path.suffix in (".jsonl", ".ndjson"):
        found = [_given(line, f"{path.name} text {n}") for n, line in enumerate(written, 1)]
    else:
        found = [Given(text=line.strip()) for line in written]
    if len(found) < 2:
        raise DataError(
            f"{path.name} holds {len(found)} texts; at least 2 are needed, one to make labels from and one to score them"
        )
    return found


def _given(line: str, where: str) -> Given:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f'{where} is not JSON; a line would be {{"text": "…"}}') from None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"].strip():
        raise DataError(f"{where} has no field text with words in it")
    return Given(text=row["text"].strip(), prompt=str(row.get("prompt") or ""), group=str(row.get("group") or ""))


def read_by(study: "Study", rows: Sequence[Given]) -> Iterator[Text]:
    """A person's texts as the assistant's turn, cut to the model's length; what the tokenizer does not give back is left out and counted."""
    prompt_format, left_out = study.params.protocol.prompt_format, 0
    seen: Counter[str] = Counter()
    for n, row in enumerate(rows):
        prompt_ids = study.engine.render(row.prompt, prompt_format)
        whole = study.engine.render(row.prompt, prompt_format, row.text)
        ids = whole[len(prompt_ids) : study.spec.max_model_len - 1]
        spans = study.engine.offsets(ids)
        seen[row.group] += 1
        if not ids or (len(whole) == len(prompt_ids) + len(ids) and spans[-1][1] != len(row.text)):
            left_out += 1
            continue
        number = seen[row.group] - 1 if row.group else n
        yield Text(
            group=row.group or f"text {n + 1}", held=number % 2 == 1, prompt_ids=prompt_ids, ids=ids, text=row.text[: spans[-1][1]],
            spans=tuple(spans),
        )  # fmt: skip
    if left_out:
        log.warning("%d of %d texts are left out: the model's tokenizer does not give them back as they stand", left_out, len(rows))


def key(study: "Study", source: object) -> str:
    """Of a corpus: the model, and the trials or the texts that it is made of."""
    return content_id("texts", study.weights, study.meaning, source, length=16)


def kept(path: Path) -> list[Text]:
    with path.open(encoding="utf-8") as file:
        return [_text(json.loads(line)) for line in file]


def keep(path: Path, texts: Iterable[Text]) -> None:
    with placing(path) as file:
        file.writelines(f"{json.dumps(asdict(text), ensure_ascii=False)}\n".encode() for text in texts)


def _text(row: dict[str, Any]) -> Text:
    found = Text(**row)
    return replace(found, prompt_ids=tuple(found.prompt_ids), ids=tuple(found.ids), spans=tuple((lo, hi) for lo, hi in found.spans))
