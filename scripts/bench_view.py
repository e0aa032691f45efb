"""Measures the pages of `python -m esr view` in a browser: painting, filtering, searching, memory, and the size of a bundle.

python scripts/bench_view.py                     # docs/benchmarks/view.json; 25,000 made-up trials with readings
python scripts/bench_view.py --bundle store      # and a bundle of this store
Needs Chromium. Every number is of one machine and says nothing of others.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import psutil

from esr.params import HOME

sys.path.insert(0, str(HOME / "tests"))
TIMES = 7
FILTERS = (
    ("outcome", "corrected"),
    ("degraded", "0"),
    ("latent", "7"),
    ("arm", "exp05/told-3"),
    ("outcome", "single"),
    ("latent", ""),
)
PAGES = (
    "front",
    "runs",
    "trials?model=tiny&judge=lexical",
    "experiment?experiment=exp03&model=tiny&judge=lexical",
    "latents?model=tiny",
)


def main() -> None:
    ask = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ask.add_argument("--bundle", type=Path, help="a store whose bundle is measured")
    given = ask.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder))
        if given.bundle:
            found["bundle"] = bundled(given.bundle.absolute(), Path(folder) / "pages")
    found["host"] = {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "python": platform.python_version()}
    text = json.dumps(found, indent=1) + "\n"
    (HOME / "docs" / "benchmarks" / "view.json").write_text(text)
    sys.stdout.write(text)


def measured(folder: Path) -> dict[str, Any]:
    import view_store
    from playwright.sync_api import sync_playwright

    store = view_store.build(folder / "store")
    words = [sys.executable, "-m", "esr", "view", "--no-open", "--port", "0", "--store", str(store.root)]
    began = perf_counter()
    process = subprocess.Popen(words, cwd=HOME, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    base = process.stdout.readline().split()[0]
    out: dict[str, Any] = {
        "trials": view_store.TRIALS,
        "replies_read": view_store.READ,
        "serves_after_s": round(perf_counter() - began, 2),
    }
    hosts: set[str] = set()
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            out["version"] = browser.version
            page = browser.new_page(viewport={"width": 1300, "height": 900})
            page.set_default_timeout(120_000)
            page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if "://" in request.url else None)
            for name in PAGES:
                first, again = (_opened(page, f"{base}#/{name}", n) for n in (1, TIMES))
                out[f"{name.split('?')[0]}_s"] = {"first_time": first[0], "again": median(again), "again_each": again}
            page.goto(f"{base}#/{PAGES[2]}")
            page.wait_for_selector(".line")
            took = []
            for label, value in FILTERS:
                page.get_by_label(label, exact=True).select_option(value)
                took.append(round(float(page.get_attribute(".grid", "data-took") or "nan"), 1))
            page.get_by_role("button", name="first", exact=True).click()
            took.append(round(float(page.get_attribute(".grid", "data-took") or "nan"), 1))
            out["filter_ms"] = {"worst": max(took), "each": took}
            began = perf_counter()
            page.get_by_label("latent", exact=True).select_option("")
            page.get_by_role("button", name="clear").click()
            page.get_by_role("searchbox").fill("onerror=")
            page.wait_for_selector(".grid[data-shown='1']")
            out["search_s"] = round(perf_counter() - began, 2)
            browser.close()
        peak = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
        out["server_peak_mb"] = round(int(peak[0].split()[1]) / 1e3)
        out["server_now_mb"] = round(psutil.Process(process.pid).memory_info().rss / 1e6)
        out["hosts_asked"] = sorted(hosts - {base.split("/")[2]})
    finally:
        process.terminate()
        process.wait(20)
    return out


def _opened(page: Any, address: str, times: int) -> list[float]:
    """From the address to the page's own content."""
    out = []
    for _ in range(times):
        page.goto("about:blank")
        began = perf_counter()
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        out.append(round(perf_counter() - began, 2))
    return out


def bundled(store: Path, folder: Path) -> dict[str, Any]:
    began = perf_counter()
    words = [sys.executable, "-m", "esr", "view", "--store", str(store), "--bundle", str(folder)]
    said = subprocess.run(words, cwd=HOME, capture_output=True, text=True, check=True).stdout
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {"seconds": round(perf_counter() - began), "mb": round(size / 1e6, 1), "says": said.split(": ", 1)[1].strip()}


if __name__ == "__main__":
    main()
