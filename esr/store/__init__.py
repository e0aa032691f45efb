"""The store: results as durable Parquet shards, and a DuckDB file with views to query them by.

store = Store()                                   # $ESR_STORE (a folder or s3://bucket/prefix), or store/ in the checkout
store.put_members(members); store.put_replies(replies); store.put_grades(grades)
store.sql("from summary")                         # a pyarrow.Table that sees the newest shards, also while others write
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from esr import params
from esr.remote import mirror
from esr.store import database, rows, schema, shards
from esr.store.audit import Audit
from esr.store.audit import audit as check_all
from esr.store.clock import Clock
from esr.store.database import Ingested
from esr.store.index import Index
from esr.store.query import Ask, asking
from esr.store.query import query as answer
from esr.types import Grade, Member, Reply, content_id

__all__ = ["Ask", "Audit", "Ingested", "Store"]

Rows: TypeAlias = Sequence[Mapping[str, Any]] | pa.Table


class Store:
    """One folder of results. Every method may be called from any thread, process or host at any time."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = Path(root or params.store()).absolute()
        self._index = Index(self.root)
        self._clock = Clock(self.root)

    @property
    def place(self) -> str:
        """For people: the folder, or the bucket that it is the copy of."""
        copy = mirror.of(self.root)
        return str(self.root) if copy is None else f"{copy.bucket.url} (here in {self.root})"

    def put(self, table: str, rows_: Rows, *, key: str | None = None, at: datetime | None = None) -> Path:
        """One durable shard, named by `key` or by its content, as of `at` or now. The same key again is a no-op."""
        data = schema.typed(table, rows_ if isinstance(rows_, pa.Table) else rows.plain(table, rows_))
        return shards.write(self.root, table, data, key or shards.content_key(data), at or datetime.now(UTC))

    def put_members(self, members: Sequence[Member], *, plan: str | None = None) -> None:
        """Trials and their places in experiments. An arm is given whole: it replaces what was planned for that arm before."""
        if not members:
            return
        arms: dict[tuple[str, str, str, str], list[Member]] = {}
        for member in members:
            arms.setdefault((member.arm.experiment, member.model, member.arm.name, member.scale), []).append(member)
        self.put("trials", rows.trials(members))
        at = self._clock.now("arms")
        self.put("arms", rows.arms(members, at), at=at)
        for arm, some in arms.items():
            found = rows.members(some, plan or "")
            named = plan or content_id("plan", sorted(found, key=lambda row: (row["trial_id"], row["latent"])))
            self.put("members", [row | {"plan": named} for row in found])
            where = dict(zip(("experiment", "model", "arm", "scale"), arm, strict=True))
            at = self._clock.now("plans")
            self.put("plans", [{**where, "plan": named, "recorded_at": at}], at=at)

    def put_replies(self, replies: Sequence[Reply]) -> None:
        if replies:
            self.put("replies", rows.replies(replies), key=content_id("replies", sorted(reply.trial_id for reply in replies)))

    def put_grades(self, grades: Sequence[Grade]) -> None:
        """The same verdicts again are a no-op, unless others stand in their place: of what the judge was shown, the newest stands."""
        if not grades:
            return
        named = sorted((g.trial_id, g.latent, g.judge, g.judge_prompt, g.shown or "", g.missing or "") for g in grades)
        key, at = content_id("grades", named), self._clock.now("grades")
        if self._replaced(key, grades):
            key = content_id("grades", named, at.isoformat())
        self.put("grades", rows.grades(grades, at), key=key, at=at)

    def _replaced(self, key: str, grades: Sequence[Grade]) -> bool:
        """Whether these grades are durable, and a newer one of other things shown stands before one of them."""
        if not (self.root / "shards" / "grades" / f"{key}.parquet").exists():
            return False
        ids = sorted({g.trial_id for g in grades})
        standing = self.sql(
            "select trial_id, latent, judge, judge_prompt, shown, missing from grades where trial_id in (select unnest(?))", [ids]
        )
        now = {(r["trial_id"], r["latent"], r["judge"], r["judge_prompt"]): r for r in standing.to_pylist()}
        found = ((g, now.get((g.trial_id, g.latent, g.judge, g.judge_prompt))) for g in grades)
        return any(row and row["shown"] != g.shown and (g.missing is None or row["missing"]) for g, row in found)

    def put_arms(self, found: Sequence[Mapping[str, Any]]) -> None:
        """Rows of `arms` but their time; the same again are a no-op."""
        if found:
            at = self._clock.now("arms")
            key = content_id("arms", [dict(row) for row in found])
            self.put("arms", [{**row, "recorded_at": at} for row in found], key=key, at=at)

    def put_thresholds(self, found: Sequence[Mapping[str, Any]]) -> None:
        if found:
            self.put("thresholds", found)

    def put_measured(self, table: Literal["norms", "lengths"], found: Sequence[Mapping[str, Any]]) -> None:
        """Rows of it but their time."""
        if found:
            at = self._clock.now(table)
            self.put(table, [{**row, "measured_at": at} for row in found], at=at)

    def put_activations(self, texts: Sequence[Mapping[str, Any]]) -> None:
        """What the SAE read of each text: the columns of `activations` but `part`, each list whole. The same key again is a no-op for readers."""
        if texts:
            self.put("activations", list(rows.activations(texts)))

    def put_audit_sheet(self, found: Sequence[Mapping[str, Any]], sheet: str) -> None:
        """Rows of `audit_sheets` but their time; the same sheet again is a no-op."""
        at = self._clock.now("audit_sheets")
        self.put("audit_sheets", [{**row, "drawn_at": at} for row in found], key=content_id("audit_sheets", sheet), at=at)

    def put_recoveries(self, found: Sequence[Mapping[str, Any]]) -> None:
        """Rows of `recoveries` but their time."""
        if found:
            at = self._clock.now("recoveries")
            self.put("recoveries", [{**row, "judged_at": at} for row in found], at=at)

    def put_sample(self, found: Sequence[Mapping[str, Any]]) -> None:
        """Rows of `samples` but their time; one that is drawn once more is the newest again."""
        at = self._clock.now("samples")
        self.put("samples", [{**row, "drawn_at": at} for row in found], at=at)

    def put_audit_labels(self, found: Sequence[Mapping[str, Any]]) -> None:
        """Rows of `audit_labels` but their time, newer than all that are there."""
        if found:
            at = self._clock.now("audit_labels")
            self.put("audit_labels", [{**row, "labelled_at": at} for row in found], at=at)

    def put_watched(self, lists: Sequence[Mapping[str, Any]]) -> None:
        """Rows of `watched` but their time: what an experiment reads of a model from now on."""
        if lists:
            at = self._clock.now("watched")
            self.put("watched", [{**row, "recorded_at": at} for row in lists], at=at)

    def put_run(self, run: Mapping[str, Any]) -> str:
        """One row of `runs`, put when a run starts and again when it ends; its id, made from its manifest and start when it has none."""
        start = [run.get(name) for name in ("experiment", "model", "scale", "judge", "started_at", "manifest")]
        named = str(run.get("run_id") or content_id("run", json.dumps(start, sort_keys=True, default=str)))
        at = self._clock.now("runs")
        self.put("runs", [{"recorded_at": at, **run, "run_id": named}], at=at)
        mirror.settle(self.root)
        return named

    def known(self, table: str, ids: Sequence[str]) -> set[str]:
        """Which of these ids are durable in the table, its newest shards included."""
        return self._index.known(table, ids)

    def texts(self, ids: Sequence[str]) -> dict[str, str]:
        """Of these trials, the replies that are durable."""
        found = self._index.column("replies", "text", ids)
        if found is not None:
            return found
        table = self.sql("select trial_id, text from replies where trial_id in (select unnest(?))", [list(ids)])
        return dict(zip(table["trial_id"].to_pylist(), table["text"].to_pylist(), strict=True))

    def ingest(self) -> Ingested:
        """Brings the DuckDB file up to date; deferred when somebody holds it."""
        return database.ingest(self.root)

    def rebuild(self) -> Ingested:
        """The DuckDB file anew from the shards."""
        return database.ingest(self.root, anew=True)

    def audit(self) -> Audit:
        """Which shards do not count, and whether the DuckDB file says what the others say; every shard is read."""
        return check_all(self.root)

    @contextmanager
    def asking(self) -> Iterator[Ask]:
        """Several questions to the same shards, in little memory."""
        with asking(self.root) as ask:
            yield ask

    def sql(self, query: str, params: Sequence[object] = (), *, as_of: datetime | None = None) -> pa.Table:
        """The answer of tables and views that hold every shard durable now. `as_of`: with each arm's plan as it stood then (UTC)."""
        return answer(self.root, query, params, as_of)
