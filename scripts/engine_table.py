"""The table of measured overheads in docs/engine.md, from docs/benchmarks/engine-gpu.json.

python scripts/engine_table.py        writes it between its two marks
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent
DOC, RAW = HOME / "docs" / "engine.md", HOME / "docs" / "benchmarks" / "engine-gpu.json"
BEGIN, END = "<!-- overheads -->\n", "<!-- /overheads -->\n"
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


def table(result: dict[str, Any]) -> str:
    head = ["", "plain vLLM", *COLUMNS.values(), "each its own boost, eager"]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows(result)]) + "\n"


def filled(text: str, result: dict[str, Any]) -> str:
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table(result) + END + after


if __name__ == "__main__":
    if not RAW.is_file():
        sys.exit(f"no measurements at {RAW.relative_to(HOME)}; scripts/gpu_engine.py makes them")
    DOC.write_text(filled(DOC.read_text(encoding="utf-8"), json.loads(RAW.read_text(encoding="utf-8"))), encoding="utf-8")
