"""A database as Prefect makes it: its hundred migrations take four seconds, and are done once for all tests of a version."""

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from esr.params import HOME

MAKE = "import asyncio; from prefect.server.database import provide_database_interface as of; asyncio.run(of().create_db())"


def migrated(home: Path) -> None:
    """In a folder that is to be a server's $PREFECT_HOME."""
    kept = HOME / ".pytest_cache" / "prefect" / f"{version('prefect')}.db"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_file():
            _make(kept)
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kept, home / "prefect.db")


def _make(kept: Path) -> None:
    folder = kept.parent / "made"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    env = {**os.environ, "PREFECT_HOME": str(folder), "PREFECT_SERVER_MEMO_STORE_PATH": str(folder / "memo.toml")}
    subprocess.run([sys.executable, "-c", MAKE], env=env, check=True, capture_output=True)
    con = sqlite3.connect(folder / "prefect.db")
    con.execute("pragma wal_checkpoint(truncate)")
    con.close()
    (folder / "prefect.db").rename(kept)
    shutil.rmtree(folder)
