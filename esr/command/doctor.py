"""python -m esr doctor: what is installed, which keys and GPUs, what is in the store, what would run. Names of keys, never values."""

import json
import os
import shutil
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esr.params import Params


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", help="a model of params.yaml: everything that a run of it lacks, and the line that mends it"
    )
    parser.add_argument("--judge", help="of a model: who is to grade; the model's own judge when left out")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(args: Namespace) -> int:
    from esr import params as parameters
    from esr.record.manifest import libraries, revision
    from esr.store import Store
    from esr.study.needs import gpu_memory

    if args.model:
        return _lacks(args.model, args.judge, as_json=args.json)
    params = parameters.load()
    gpus = gpu_memory()
    found: dict[str, Any] = {
        "python": sys.version.split()[0],
        "revision": revision(),
        "libraries": libraries(),
        "gpus": gpus,
        "keys": _keys(params),
        "store": _store(Store()),
        "older": _older(Store(), params),
        "models": {name: _model(params, name, gpus) for name in params.models},
    }
    sys.stdout.write(json.dumps(found, indent=1, default=str) + "\n" if args.json else _told(found))
    return 0


def _lacks(name: str, judge: str | None, *, as_json: bool) -> int:
    """What one model needs, what of it is here, and what mends the rest. Exit code 1 when something lacks."""
    from dataclasses import asdict

    from esr import params as parameters
    from esr.study.needs import needs

    found = needs(parameters.load(name), name, parameters.store(), judge=judge)
    lacking = [need for need in found if not need.there]
    if as_json:
        sys.stdout.write(json.dumps([asdict(need) for need in found], indent=1) + "\n")
        return 1 if lacking else 0
    for need in found:
        sys.stdout.write(f"{'ok     ' if need.there else 'MISSING'} {need.what:<8} {need.said}\n")
        sys.stdout.write(f"                 do: {need.mend}\n" if need.mend else "")
    sys.stdout.write(f"{name}: {f'{len(lacking)} missing' if lacking else 'runs here'}\n")
    return 1 if lacking else 0


def _keys(params: "Params") -> dict[str, bool]:
    """Whether each judge's key is set, in the environment or in .env."""
    from esr.params import HOME

    lines = (HOME / ".env").read_text(encoding="utf-8").splitlines() if (HOME / ".env").is_file() else []
    written = {line.split("=", 1)[0].strip() for line in lines if "=" in line and line.split("=", 1)[1].strip()}
    names = sorted({judge.key_env for judge in params.judges.values() if judge.key_env})
    return {name: bool(os.environ.get(name)) or name in written for name in names}


def _store(store: Any) -> dict[str, Any]:
    from esr.store import schema, shards

    files = shards.listed(store.root)
    found: dict[str, Any] = {"root": store.place, "exists": store.root.is_dir(), "shards": len(files), "schema": schema.VERSION}
    place = store.root if store.root.is_dir() else Path(store.root).parent
    found["writable"] = os.access(place, os.W_OK)
    found["free_gib"] = shutil.disk_usage(place).free >> 30 if place.is_dir() else None
    if files:
        counts = store.sql("select experiment, count(*) as n from current_members group by all order by all").to_pylist()
        found["members"] = {row["experiment"]: row["n"] for row in counts}
    audit = store.audit()
    found |= {"left_alone": audit.left_alone, "lost": audit.lost, "changed": audit.changed, "not_compared": audit.not_compared}
    return found


def _older(store: Any, params: "Params") -> list[str]:
    """Trials from before their meaning was recorded: what is counted on at the next run, and what is not."""
    from esr.errors import EsrError
    from esr.params import load
    from esr.study import older
    from esr.study.study import Study

    lines = []
    for name in store.sql("select distinct model from trials where meaning is null and weights is not null order by 1")[
        "model"
    ].to_pylist():
        if name not in params.models:
            continue
        try:
            found = older.outlook(Study(load(name), name, store))
        except EsrError as error:
            lines.append(f"older trials of {name!r} wait for what they rest on: {error}")
            continue
        if found is not None:
            n = found.adopted
            proved = f"{n.trials:,} older trials of {name!r} mean what they mean today ({n.replies:,} replies, {n.grades:,} graded)"
            lines += [*([proved] if n.trials else []), *found.sentences]
    return lines


def _ailing(store: dict[str, Any]) -> list[str]:
    """What is wrong with the store, a line each, with what would do."""
    lines = [f"  shards/{name} {why}; nothing of it counts" for name, why in store["left_alone"].items()]
    lost = ", ".join(f"{n:,} of {table}" for table, n in store["lost"].items())
    changed = ", ".join(f"{n:,} of {table}" for table, n in store["changed"].items())
    told = [f"lacks rows that the shards hold ({lost})"] if lost else []
    told += [f"holds rows that no shard holds ({changed})"] if changed else []
    if told:
        lines.append(f"  esr.duckdb {' and '.join(told)}; delete it and it is made again from the shards")
    if store["not_compared"]:
        lines.append(f"  esr.duckdb was not compared with the shards: {store['not_compared']}")
    return lines


def _model(params: "Params", name: str, gpus: list[str]) -> str:
    """Whether a run of this model could start here."""
    from esr import params as parameters
    from esr.study.needs import needs

    lacking = dict.fromkeys(need.what for need in needs(parameters.load(name), name, parameters.store(), gpus) if not need.there)
    return f"lacks {', '.join(lacking)}; `python -m esr doctor {name}` says what would do" if lacking else "runs here"


def _told(found: dict[str, Any]) -> str:
    revision, store = found["revision"], found["store"]
    commit = (revision["commit"] or "not a checkout")[:12] + (" with changes" if revision["dirty"] else "")
    members = ", ".join(f"{n:,} in {name}" for name, n in store.get("members", {}).items()) or "no trials yet"
    lines = [
        f"python {found['python']}, revision {commit}",
        "libraries: " + ", ".join(f"{name} {version}" for name, version in found["libraries"].items()),
        "GPUs: " + ("; ".join(found["gpus"]) or "none; the CPU engine serves the tiny models"),
        "keys: " + ", ".join(f"{name} {'set' if there else 'not set'}" for name, there in found["keys"].items()),
        f"store {store['root']}: {store['shards']:,} shards, {members}"
        + ("" if store["writable"] else "; it cannot be written to")
        + (f"; {store['free_gib']} GiB free" if store["free_gib"] is not None else ""),
        *_ailing(store),
        *(f"  {line}" for line in found["older"]),
        "models:",
        *(f"  {name}: {state}" for name, state in found["models"].items()),
    ]
    return "\n".join(lines) + "\n"
