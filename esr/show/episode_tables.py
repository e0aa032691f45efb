"""The tables of experiment 9: means by region, curves around the correction, contrasts, areas, onsets, and the authors' statistics.

`latent` is a watched latent, or −1 for the mean over a list; `distractor` is what steered the reply. `steering` says under which
protocol it was read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from esr.count import authors_regions, contrasts, detection
from esr.count.aligned import region_mean, window
from esr.count.contrasts import Contrast, Mean, holm
from esr.count.timing import Timing, Watched, timing
from esr.experiment import Selection, Table
from esr.show.seen import List, Seen, seen, sources
from esr.store import Store
from esr.store.shards import listed
from esr.study import regions
from esr.study.backtracking import halves
from esr.study.episodes import Episode
from esr.study.regions import CORRECTION, OFF, ON

Floats = NDArray[np.float64]
Row = dict[str, Any]
WHOLE = -1
"""The mean over a list's latents."""


class Read:
    """One protocol's series, cut as the tables need them."""

    def __init__(self, found: Seen, steering: str) -> None:
        self.found, self.steering = found, steering
        self.series = found.series(steering)
        first = found.settings.steering[0]
        self.quiet = self.series if steering == first else found.series(first)
        self.episodes = [
            one
            for one in found.episodes
            if one.trial_id in self.series and (CORRECTION if one.returns else OFF) in found.regions.get(one.trial_id, {})
        ]
        """Where few come back, after them replies that are off topic from end to end."""
        self.returning = [one for one in self.episodes if one.returns]
        self.latent, self.question = _of(self.episodes)

    def of(self, key: str | None, columns: Sequence[int], *, quiet: bool = False) -> Floats | None:
        """A reply's series: the mean over these latents."""
        found = (self.quiet if quiet else self.series).get(key or "")
        return None if found is None else found[list(columns)].mean(axis=0)

    def means(self, columns: Sequence[int], of: Sequence[Episode] | None = None) -> dict[str, Floats]:
        """By region, and over the controls: the unsteered reply whole, and the restart-free one as far as the episode was off topic."""
        out: dict[str, list[float]] = {name: [] for name in (OFF, CORRECTION, ON, "unsteered", "restart-free")}
        for one in self.episodes if of is None else of:
            parts, own = self.found.regions[one.trial_id], self.of(one.trial_id, columns)
            assert own is not None
            for kind in (OFF, CORRECTION, ON):
                out[kind].append(region_mean(own, *parts.get(kind, (None, None))))
            quiet, beside = self.of(self.found.quiet(one), columns, quiet=True), self.of(one.control, columns)
            out["unsteered"].append(float("nan") if quiet is None or not len(quiet) else float(quiet.mean()))
            out["restart-free"].append(float("nan") if beside is None else region_mean(beside, *parts[OFF]))
        return {name: np.array(values) for name, values in out.items()}

    def watched(self, columns: Sequence[int]) -> Watched:
        lead, before, control = self.found.settings.lead, [], []
        for one in self.returning:
            parts, own, beside = self.found.regions[one.trial_id], self.of(one.trial_id, columns), self.of(one.control, columns)
            low, at = max(parts[OFF][0], parts[CORRECTION][0] - lead, 0), parts[CORRECTION][0]
            assert own is not None
            before.append(own[low:at])
            control.append(np.zeros(0) if beside is None or len(beside) < at else beside[low:at])
        means = self.means(columns, self.returning)
        return Watched(means[OFF], means[ON], before, control, *_of(self.returning))

    def tokens(self, columns: Sequence[int]) -> tuple[Floats, NDArray[np.bool_], NDArray[Any], NDArray[Any]]:
        """Values [tokens, latents], whether each token is off topic, its distractor and question: episodes off topic against
        their own on-topic part and the unsteered replies; replies that stay off topic against the unsteered alone."""
        values, positive, latent, question = [], [], [], []
        for one in self.episodes:
            parts, own = self.found.regions[one.trial_id], self.series[one.trial_id][list(columns)].T
            quiet = self.quiet.get(self.found.quiet(one) or "")
            some = [(own[slice(*parts[OFF])], True), (own[slice(*parts.get(ON, (0, 0)))], False)]
            some += [] if quiet is None else [(quiet[list(columns)].T, False)]
            for part, off in some:
                values.append(part)
                positive.append(np.full(len(part), off))
                latent.append(np.full(len(part), one.latent))
                question.append(np.full(len(part), one.question))
        return np.concatenate(values), np.concatenate(positive), np.concatenate(latent), np.concatenate(question)


def _of(some: Sequence[Episode]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Distractor and question of each."""
    return np.array([one.latent for one in some], int), np.array([one.question for one in some], str)


_kept: dict[tuple[object, ...], list[Read]] = {}
"""The readings of the last selection, as long as the store has no other files: seven tables are made of them."""


def _reads(store: Store, chosen: Selection) -> list[Read]:
    key = (store.root, chosen.model, chosen.scale, chosen.judge, *listed(store.root))
    if key not in _kept:
        found = seen(store, chosen)
        _kept.clear()
        _kept[key] = [read for read in (Read(found, steering) for steering in found.settings.steering) if read.episodes]
    return _kept[key]


def _each(read: Read) -> Iterator[tuple[List, int, str, list[int]]]:
    """A list whole, then its latents, with their rows in a series."""
    for some in read.found.lists:
        yield some, WHOLE, f"{len(some.latents)} latents", read.found.columns(some)
        for latent, label in zip(some.latents, some.labels, strict=True):
            yield some, latent, label, [read.found.latents.index(latent)]


def by_region(store: Store, chosen: Selection) -> pd.DataFrame:
    """A row an episode and list: the mean over each region and control."""
    rows: list[Row] = []
    for read in _reads(store, chosen):
        for some in read.found.lists:
            means = read.means(read.found.columns(some))
            for i, one in enumerate(read.episodes):
                about = {"steering": read.steering, "list": some.kind, "trial_id": one.trial_id, "distractor": one.latent}
                about |= {"question": one.question, "seed": one.seed, "restart_free": one.control}
                rows.append(about | {name: float(values[i]) for name, values in means.items()})
    return _frame(rows)


def curves(store: Store, chosen: Selection) -> pd.DataFrame:
    """Token by token around the first word of the correction, and the same places of both controls."""
    rows: list[Row] = []
    for read in _reads(store, chosen):
        found, reach = read.found, read.found.settings.window
        for some in found.lists:
            columns = found.columns(some)
            kinds: dict[str, list[Floats]] = {"episodes": [], "restart-free": [], "unsteered": []}
            for one in read.returning:
                at = found.regions[one.trial_id][CORRECTION][0]
                for kind, key in (("episodes", one.trial_id), ("restart-free", one.control), ("unsteered", found.quiet(one))):
                    own = read.of(key, columns, quiet=kind == "unsteered")
                    kinds[kind].append(np.full(2 * reach, np.nan) if own is None else window(own, at, reach, reach))
            distractor, question = _of(read.returning)
            for kind, windows in kinds.items():
                grid = np.array(windows)
                for t in range(2 * reach if windows else 0):
                    told = contrasts.mean(grid[:, t], distractor, question, confidence=found.confidence)
                    if told.n:
                        about = {"steering": read.steering, "list": some.kind, "reply": kind, "token": t - reach}
                        rows.append(about | _mean(told, ""))
    return _frame(rows, ("steering", "list", "reply", "token", "value", "low", "high", "n"))


PAIRS = ((OFF, ON), (OFF, "unsteered"), (OFF, "restart-free"), (CORRECTION, OFF))


def compared(store: Store, chosen: Selection) -> pd.DataFrame:
    """A row a contrast: of each list whole, and of each latent with Holm's p over the list. Latents found by contrast are tested on
    the distractors that they were not found on."""
    rows: list[Row] = []
    for read in _reads(store, chosen):
        _, test = halves([one.latent for one in read.found.episodes])
        for some, latent, label, columns in _each(read):
            means = read.means(columns)
            kept = (
                np.array([one.latent in test for one in read.episodes])
                if some.kind == "by-contrast"
                else np.ones(len(read.episodes), bool)
            )
            for one, other in PAIRS:
                told = contrasts.contrast(
                    means[one][kept], means[other][kept], read.latent[kept], read.question[kept], confidence=read.found.confidence
                )
                about = {"steering": read.steering, "list": some.kind, "latent": latent, "label": label, "one": one, "other": other}
                rows.append(about | _contrast(told))
    return _with_holm(_frame(rows), ["steering", "list", "one", "other"])


def timed(store: Store, chosen: Selection) -> pd.DataFrame:
    """A row a list or latent: whether it leads restarts or follows the text, its areas, its onset and how often there is none."""
    rows: list[Row] = []
    for read in _reads(store, chosen):
        s = read.found.settings
        for some, latent, label, columns in _each(read):
            watched = read.watched(columns)
            told = timing(watched, soon=s.soon, hold=s.hold, error=s.error, confidence=read.found.confidence)
            values, positive, distractor, question = read.tokens(columns)
            now = detection.area(values.mean(axis=1), positive, distractor, question, confidence=read.found.confidence)
            about = {"steering": read.steering, "list": some.kind, "latent": latent, "label": label, "kind": told.kind}
            row = about | _area(now, "now") | _area(told.soon, "soon") | _onsets(told)
            if latent == WHOLE and len(columns) > 1:
                learnt = detection.area(detection.left_out(values, positive, distractor), positive, distractor, question)
                row |= _area(learnt, "now_learnt")
            rows.append(row)
    return _frame(rows)


def onsets(store: Store, chosen: Selection) -> pd.DataFrame:
    """A row an episode and list: how many tokens before its correction the list left its level; empty: it did not."""
    rows: list[Row] = []
    for read in _reads(store, chosen):
        s = read.found.settings
        for some in read.found.lists:
            watched = read.watched(read.found.columns(some))
            told = timing(watched, soon=s.soon, hold=s.hold, error=s.error, confidence=read.found.confidence)
            for one, before, at in zip(read.returning, watched.before, told.onsets, strict=True):
                about = {"steering": read.steering, "list": some.kind, "trial_id": one.trial_id, "distractor": one.latent}
                rows.append(about | {"looked_at": len(before), "onset": None if at is None else float(at)})
    return _frame(rows, ("steering", "list", "trial_id", "distractor", "looked_at", "onset"))


def authors(store: Store, chosen: Selection) -> pd.DataFrame:
    """What the authors' code would print: of each latent over episodes, of each list over its latents' means."""
    rows: list[Row] = []
    for read in _reads(store, chosen):
        for some in read.found.lists if read.returning else ():
            off, on = [], []
            for latent, label in zip(some.latents, some.labels, strict=True):
                means = read.means([read.found.latents.index(latent)], read.returning)
                off.append(means[OFF])
                on.append(means[ON])
                regions_ = {kind: authors_regions.region(means[kind]).mean for kind in (OFF, CORRECTION, ON)}
                rows.append(_authors(read, some, latent, label, regions_, authors_regions.tests(means[OFF], means[ON])))
            one, other, tests = authors_regions.group(off, on)
            rows.append(_authors(read, some, WHOLE, f"{len(off)} latents", {OFF: one.mean, ON: other.mean}, tests))
    return _frame(
        rows, ("steering", "list", "latent", "label", OFF, CORRECTION, ON, *(field.name for field in fields(authors_regions.Tests)))
    )


def _authors(read: Read, some: List, latent: int, label: str, means: Mapping[str, float], tests: authors_regions.Tests) -> Row:
    about: Row = {"steering": read.steering, "list": some.kind, "latent": latent, "label": label}
    return about | {kind: means.get(kind, float("nan")) for kind in (OFF, CORRECTION, ON)} | asdict(tests)


def agreed(store: Store, chosen: Selection) -> pd.DataFrame:
    """How far rule and judge mark the same episodes alike; no row where only one of them marked."""
    found = seen(store, chosen)
    rows = store.sql("select * from regions where trial_id in (select unnest(?)) order by all", [found.trials()]).to_pylist()
    told = regions.agreement(sources(rows, "rule/", found.prompts), sources(rows, "judge/", found.prompts))
    columns = ["n", "within_five", "apart_median", "overlap_mean"]
    return pd.DataFrame([] if told is None else [asdict(told)], columns=columns)


def _frame(rows: Sequence[Row], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A column of numbers is one also where none of them is there; `columns` of a table that may have no row."""
    frame = pd.DataFrame(list(rows), columns=None if columns is None else list(columns))
    for name in frame.columns:
        if frame[name].dtype == object and all(value is None or isinstance(value, float) for value in frame[name]):
            frame[name] = frame[name].astype(float)
    return frame


def _mean(told: Mean, name: str) -> Row:
    prefix = f"{name}_" if name else ""
    low, high = told.interval or (None, None)
    return {f"{prefix}value": told.value, f"{prefix}low": low, f"{prefix}high": high, f"{prefix}n": told.n}


def _contrast(told: Contrast) -> Row:
    row = asdict(told)
    low, high = row.pop("interval") or (None, None)
    return {"one_mean": row.pop("one"), "other_mean": row.pop("other")} | row | {"low": low, "high": high}


def _area(told: detection.Area, name: str) -> Row:
    low, high = told.interval or (None, None)
    out: Row = {f"{name}_area": told.value, f"{name}_low": low, f"{name}_high": high, f"{name}_p": told.p}
    return out | {f"{name}_positives": told.positives, f"{name}_negatives": told.negatives, f"{name}_latents": told.latents, f"{name}_no_interval": told.no_interval}  # fmt: skip


def _onsets(told: Timing) -> Row:
    return {"level": told.level} | _mean(told.onset, "onset") | _mean(told.never, "never")


def _with_holm(frame: pd.DataFrame, groups: list[str]) -> pd.DataFrame:
    frame["p_holm"] = np.nan
    for _, rows in frame[frame["latent"] != WHOLE].groupby(groups, sort=False):
        p = [None if pd.isna(value) else float(value) for value in rows["p"]]
        frame.loc[rows.index, "p_holm"] = [np.nan if value is None else value for value in holm(p)]
    return frame


ONSETS, TIMING = Table("onsets", onsets), Table("timing", timed)
EVERY = (
    Table("regions", by_region), Table("curves", curves), Table("compared", compared), TIMING, ONSETS, Table("authors", authors),
    Table("agreement", agreed),
)  # fmt: skip
