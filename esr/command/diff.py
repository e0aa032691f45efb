"""python -m esr diff: two runs, arms, models, presets, plans or judges held against each other in pairs, and the trials that changed."""

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from esr.command.reading import existing

if TYPE_CHECKING:
    from rich.console import Console

    from esr.count.changes import Change, Partners, Side
    from esr.show.diff import Compared, Diff


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "a", help="an arm (exp05/self_monitor), model, judge, preset, run (the first characters of its id, or its name) or plan"
    )
    parser.add_argument("b", help="another of the same kind; differences are the first minus this one")
    parser.add_argument(
        "--arm", default="", help="of models, judges and presets: in this arm (exp01/baseline); of runs: in this one alone"
    )
    parser.add_argument("--model", default="", help="of arms, judges or presets: on this model; needed where there are several")
    parser.add_argument("--judge", default="", help="whose verdicts; needed where there are several, of runs their own")
    parser.add_argument("--scale", default="full", help="full or smoke (full); a run's and a plan's own")
    parser.add_argument("--limit", type=int, default=10, help="changed trials of each arm that are told (10); 0: all")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(args: Namespace) -> int:
    from esr.params import load
    from esr.show.diff import diff, told
    from esr.show.sides import Asked

    store, protocol = existing(), load().protocol
    asked = Asked(args.a, args.b, args.arm, args.model, args.judge, args.scale)
    found = diff(store, asked, exclude_degraded=protocol.exclude_degraded, confidence=protocol.confidence)
    limit = args.limit if args.limit > 0 else None
    if args.json:
        sys.stdout.write(json.dumps(told(found, limit), indent=1, ensure_ascii=False) + "\n")
    else:
        _show(found, limit)
    return 0


def _show(found: "Diff", limit: int | None) -> None:
    from rich.console import Console
    from rich.table import Table

    from esr.show import words

    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 170)
    if found.differs is not None:
        console.print(f"A is {found.compared[0].a.told}; B is {found.compared[0].b.told}.", soft_wrap=True)
        if not found.differs:
            console.print(
                "Their manifests say the same: parameters, weights, judge, prompts, code and libraries.\n", soft_wrap=True
            )
        else:
            console.print("What they were made with differs in:")
            table = Table(box=None, padding=(0, 2, 0, 2))
            for name in ("", "A", "B"):
                table.add_column(name, overflow="fold")
            for differs in found.differs:
                table.add_row(differs.what, differs.a, differs.b)
            console.print(table)
            console.print()
    for one in found.compared:
        _arm(console, found, one, limit)
    console.print(words.NOTE, soft_wrap=True)


def _arm(console: "Console", found: "Diff", one: "Compared", limit: int | None) -> None:
    from rich.table import Table

    from esr.show import words

    title = f"{_named(one, 'a')} − {_named(one, 'b')}, scale {one.a.scale}: {one.pairs:,} pairs"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("metric", "difference", "p", "method"):
        table.add_column(name, justify="right" if name in ("difference", "p") else "left", no_wrap=True)
    for name, d in one.differences.items():
        p = "" if d.p is None else f"{d.p:.3g}"
        table.add_row(words.NAMES.get(name, name), words.difference(d), p, d.method or d.no_interval)
    console.print(table)
    for side, partners in (("A", one.changes.a), ("B", one.changes.b)):
        console.print(_alone(side, partners), soft_wrap=True)
    changed = one.changes.changed
    console.print(f"\n{_counted(one)}", soft_wrap=True)
    for pair in changed[:limit]:
        console.print(_change(pair), soft_wrap=True)
    if limit is not None and len(changed) > limit:
        console.print(
            f"  … and {len(changed) - limit:,} more; --limit 0 tells all, `python -m esr view` shows them side by side",
            soft_wrap=True,
        )
    console.print()


def _named(one: "Compared", side: str) -> str:
    """By what tells it from the other."""
    this, other = (one.a, one.b) if side == "a" else (one.b, one.a)
    return this.arm if this.arm != other.arm or this.name == this.arm else f"{this.name} ({this.arm})"


def _alone(side: str, found: "Partners") -> str:
    why = "; ".join(f"{n:,} × {reason}" for reason, n in found.lacking.items())
    return f"{side}: {found.planned:,} trials planned, {found.graded:,} graded, {found.paired:,} in pairs" + (
        f"; {why}" if why else ""
    )


def _counted(one: "Compared") -> str:
    changed = one.changes.changed
    outcomes = sum(pair.a.outcome != pair.b.outcome for pair in changed)
    only = sum(pair.what == ("text",) for pair in changed)
    return (
        f"Changed: {len(changed):,} of {one.pairs:,} pairs, {outcomes:,} in outcome, {only:,} in words alone. Most first:"
        if changed
        else f"No pair changed: {one.pairs:,} replies and verdicts are the same."
    )


def _change(pair: "Change") -> str:
    a, b, label = pair.a, pair.b, f" ({pair.label})" if pair.label else ""
    same = "" if a.trial_id != b.trial_id else ", one reply"
    lines = [f"  latent {pair.latent}{label} · {pair.question} · seed {pair.seed}: A {_verdict(a)}, B {_verdict(b)}{same}"]
    if pair.parting:
        alike = f"{pair.parting.words} word{'' if pair.parting.words == 1 else 's'} alike" + (
            f" to “{pair.parting.before}”" if pair.parting.before else ""
        )
        lines.append(f"      {alike}, then A “{pair.parting.a or '(ends)'}”, B “{pair.parting.b or '(ends)'}”")
    lines.append(f"      python -m esr show {a.trial_id[:12]}" + (f"; python -m esr show {b.trial_id[:12]}" if not same else ""))
    return "\n".join(lines)


def _verdict(side: "Side") -> str:
    scores = " ".join(f"{score:.0f}" for score in side.scores)
    return f"{side.outcome} ({scores}{', degraded' if side.degraded else ''})"
