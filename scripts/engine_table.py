"""The tables of measured overheads in docs/engine.md, from docs/benchmarks/engine-gpu.json and engine-peers.json.

python scripts/engine_table.py        writes each between its two marks
"""

import json
import re
import statistics
import sys
from collections.abc import Iterator, Mapping
from math import comb
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent
DOC, RAW = HOME / "docs" / "engine.md", HOME / "docs" / "benchmarks"
FILES = {"overheads": "engine-gpu.json", "pairs": "engine-gpu.json", "peers": "engine-peers.json"}
"""Each table's raw numbers."""
COLUMNS = {
    "idle": "loaded, nobody steers",
    "zero": "each a boost of 0",
    "steered": "each its own boost",
    "clamp": "each its own 26 clamps to 0",
    "directions": "each its own direction after 4 blocks",
    "capture": "top-64 capture",
}


def rows(result: dict[str, Any]) -> Iterator[str]:
    for key, block in result.items():
        shape, _, what = key.partition("/")
        if shape == "smoke" or "plain/tokens_per_second" not in block:
            continue
        first = block["plain"][0]
        n = int(what.partition(" ")[0].removeprefix("batch")) if what != "prefill" else 0
        asked = f"batch {n}, replies of {first['generated'] // n}" if n else f"prefill of {first['prompt_tokens']:,} tokens"
        cells = [cell(block, label) for label in COLUMNS]
        eager = (result.get(f"{shape}/eager/{what}") or {}).get("eager steered/tokens_per_second")
        share = f"{eager / block['plain/tokens_per_second']:.2f}" if eager else "–"
        yield f"| {shape}, {asked} | {block['plain/tokens_per_second']:,.0f} tok/s | {' | '.join(cells)} | {share} |"


def cell(block: dict[str, Any], label: str) -> str:
    if label not in block.get("relative", {}):
        return "–"
    n = sum(1 for answer in block[label] if answer.get("seconds"))
    return f"{block['relative'][label]:.3f} ({n})"


def overheads(result: dict[str, Any]) -> Iterator[str]:
    head = ["", "plain vLLM", *COLUMNS.values(), "each its own boost, eager"]
    yield from (f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows(result))


def shares(block: Mapping[str, Any], label: str) -> list[float]:
    """Of plain vLLM's throughput, round by round; gpu_throughput.py keeps a round that failed in its place."""
    return [
        plain["seconds"] / answer["seconds"]
        for plain, answer in zip(block.get("plain", ()), block.get(label, ()), strict=False)
        if plain.get("seconds") and answer.get("seconds")
    ]


def interval(values: list[float]) -> tuple[float, float] | None:
    """The order statistics that hold the median of independent rounds in 95 % or more; of fewer than six there are none."""
    n, r = len(values), 0
    while 2 * sum(comb(n, i) for i in range(r + 1)) <= 0.05 * 2**n:
        r += 1
    ordered = sorted(values)
    return (ordered[r - 1], ordered[n - r]) if r else None


def paired(block: Mapping[str, Any], label: str) -> str:
    some = shares(block, label)
    if not some:
        return "–"
    within = interval(some)
    around = "[{:.3f}, {:.3f}]".format(*within) if within else f"({min(some):.3f} to {max(some):.3f})"
    return f"{statistics.median(some):.3f} {around}, {len(some)}"


def pairs(result: dict[str, Any]) -> Iterator[str]:
    """Of the measurements that have rounds enough for an interval."""
    labels = {label: title for label, title in COLUMNS.items() if label not in ("zero", "capture")}
    yield f"| | {' | '.join(labels.values())} |"
    yield "|---" * (len(labels) + 1) + "|"
    for key, block in result.items():
        if "batch" in key and isinstance(block, dict) and len(block.get("steered", ())) >= 6:
            shape, _, what = key.partition("/")
            yield f"| {shape}, {what.replace('batch', 'batch ').replace(' of ', ', replies of ')} | {' | '.join(paired(block, label) for label in labels)} |"


def peers(result: dict[str, Any]) -> Iterator[str]:
    asked = [key for key in result if key.startswith("batch")]
    batches = list(dict.fromkeys(key.partition(",")[0] for key in asked))
    yield f"| | {' | '.join(what.replace('batch', 'batch ').partition(' of ')[0] for what in batches)} |"
    yield "|---" * (len(batches) + 1) + "|"
    for kind, title in {"plugin": "this plugin", **result["versions"]}.items():
        for mode in ("idle", "steered"):
            cells = [
                next(
                    (found for key in asked if key.startswith(what) and (found := paired(result[key], f"{kind} {mode}")) != "–"),
                    "–",
                )
                for what in batches
            ]
            yield f"| {title}, {mode} | {' | '.join(cells)} |"


MADE = {"overheads": overheads, "pairs": pairs, "peers": peers}


def filled(text: str) -> str:
    results = {file: json.loads((RAW / file).read_text(encoding="utf-8")) for file in set(FILES.values())}
    for name, make in MADE.items():
        lines = "".join(line + "\n" for line in make(results[FILES[name]]))
        text, found = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->\n)",
            lambda marks, lines=lines: marks[1] + lines + marks[2],
            text,
            flags=re.DOTALL,
        )
        assert found == 1, f"docs/engine.md has no place for the table of {name}"
    return text


if __name__ == "__main__":
    if missing := [name for name in FILES.values() if not (RAW / name).is_file()]:
        sys.exit(f"no measurements at docs/benchmarks/{missing[0]}; scripts/gpu_engine.py and gpu_peers.py make them")
    DOC.write_text(filled(DOC.read_text(encoding="utf-8")), encoding="utf-8")
