"""Plays pages of the documentation: each line of their fenced blocks, as printed, in a fresh clone of the repository."""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from esr.params import HOME

VENV = Path(sys.executable).parent.parent
PLAYED = ("bash", "python")
"""Languages of blocks that are played."""
PORT = 4200
"""Prefect's own."""
OURS = ("ESR_", "PREFECT_", "COVERAGE_", "COV_CORE_", "DVC_", "VLLM_", "PYTEST_", "MAKE", "MFLAGS")
KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY", "PYTHONPATH", "VIRTUAL_ENV", "MPLBACKEND")


@dataclass(frozen=True)
class Line:
    """A line to be typed in; of a Python block, all of it."""

    page: str
    block: int
    language: str
    text: str

    @property
    def command(self) -> str:
        """Without the comment behind it: by this a line is known."""
        return re.sub(r"\s+#\s.*", "", self.text).strip() if self.language == "bash" else self.text.strip().splitlines()[0]

    def __str__(self) -> str:
        return f"{Path(self.page).stem}: {self.command}"


@dataclass(frozen=True)
class Played:
    """What a line left on the terminal."""

    line: Line
    code: int
    out: str
    err: str
    took: float

    @property
    def last(self) -> str:
        """The last line of its errors."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""

    def __str__(self) -> str:
        return f"$ {self.line.text}\n{self.out}{self.err}-> {self.code} after {self.took:.1f} s"


def lines(page: str) -> list[Line]:
    """Whatever the page's fenced blocks ask a reader to type in, in its order."""
    found, parts = [], re.split(r"^```", (HOME / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    for number, part in enumerate(parts[1::2]):
        language, _, body = part.partition("\n")
        language = {"sh": "bash", "shell": "bash", "console": "bash"}.get(language.strip(), language.strip())
        if language == "python":
            found.append(Line(page, number, language, body))
        elif language == "bash":
            typed = re.sub(r"\\\n", " ", body).splitlines()
            found += [Line(page, number, language, text) for text in typed if text.strip() and not text.startswith("#")]
    return found


def taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


class Shell:
    """A bash that is given one line after the other, so that what a line exports is there for the next."""

    def __init__(self, root: Path, folder: Path, env: Mapping[str, str]) -> None:
        self.out, self.err = root / "out.log", root / "err.log"
        self.bash = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def type(self, text: str, patience: float) -> int:
        """Its exit code; a line that takes longer is ended, with all that it started."""
        assert self.bash.stdin is not None
        assert self.bash.stdout is not None
        self.bash.stdin.write(f"{{ {text}\n}} >{self.out} 2>{self.err} </dev/null\necho $?\n")
        self.bash.stdin.flush()
        if not select.select([self.bash.stdout], [], [], patience)[0]:
            self.close()
            raise TimeoutError(f"{text!r} has not ended after {patience:.0f} s")
        return int(self.bash.stdout.readline())

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.bash.pid, signal.SIGKILL)
        self.bash.wait()


@dataclass
class Clone:
    """A fresh clone with this checkout's venv linked in, or with none, and nothing of this machine's settings."""

    root: Path
    install: bool = False
    """`make setup` really installs."""
    port: int = PORT
    shells: dict[tuple[str, int], Shell] = field(default_factory=dict)

    @property
    def tree(self) -> Path:
        return self.root / "esr"

    @property
    def env(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(OURS) and key not in KEYS}
        kept["PATH"] = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if Path(p).resolve() != (VENV / "bin").resolve())
        quiet = {"DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "VLLM_NO_USAGE_STATS": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        quiet |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.root / "hf"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        if not self.install:
            quiet["PYTHONPATH"] = str(self.tree)  # the venv's own installation is of another checkout
        return kept | quiet

    @property
    def server(self) -> dict[str, str]:
        """Where Prefect's own port is somebody else's: another one."""
        return {} if self.port == PORT else {"PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api"}

    def make(self) -> None:
        """Cloned, with what this working tree has changed on top, as one more commit."""
        git(HOME, "clone", "--quiet", str(HOME), str(self.tree))
        for name in filter(None, git(HOME, "ls-files", "-cmo", "--exclude-standard", "-z").split("\0")):
            here, there = HOME / name, self.tree / name
            there.parent.mkdir(parents=True, exist_ok=True)
            if here.is_file():
                if not there.is_file() or there.read_bytes() != here.read_bytes():
                    shutil.copyfile(here, there)
            else:
                there.unlink(missing_ok=True)
        if self.dirt():
            git(self.tree, "add", "-A")
            git(self.tree, "-c", "user.name=player", "-c", "user.email=player@localhost", "commit", "-qm", "as it stands")
        if self.install:
            return
        venv = self.tree / ".venv"
        venv.mkdir()
        for part in VENV.iterdir():
            if not part.name.startswith("installed-"):
                (venv / part.name).symlink_to(part)
        stamp = subprocess.run(
            ["make", "-s", "--eval", "stamp: ; @echo $(STAMP)", "stamp"],
            cwd=self.tree,
            env=self.env,
            capture_output=True,
            text=True,
        )
        (self.tree / stamp.stdout.strip()).touch()  # what `make setup` leaves when it has installed

    def play(self, line: Line, text: str | None = None, *, activated: bool = False, patience: float = 1500) -> Played:
        """The line as printed, or `text` in its place."""
        at = (line.page, line.block)
        if line.language == "python":
            script = self.root / f"{Path(line.page).stem}_{line.block}.py"
            script.write_text(line.text)
            text = f".venv/bin/python {script}"
        if at not in self.shells:
            path = {"PATH": f"{self.tree / '.venv' / 'bin'}{os.pathsep}{self.env['PATH']}"} if activated else {}
            serves = any(".venv/bin/python -m deployments up" in one.text for one in lines(line.page) if one.block == line.block)
            if serves:
                self.port = free() if taken(PORT) else PORT
            self.shells[at] = Shell(self.root, self.tree, self.env | path | (self.server if serves else {}))
        began = time.monotonic()
        shell = self.shells[at]
        code = shell.type((text or line.text).replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{self.port}"), patience)
        return Played(line, code, shell.out.read_text(), shell.err.read_text(), time.monotonic() - began)

    def dirt(self) -> list[str]:
        """What git sees changed, one line a file."""
        return git(self.tree, "status", "--short").splitlines()

    def restore(self) -> None:
        git(self.tree, "checkout", "--quiet", "--", ".")

    def close(self) -> None:
        for shell in self.shells.values():
            shell.close()
        if not (self.tree / "store" / "prefect" / "processes.json").is_file():
            return  # no line has started a Prefect server
        with suppress(OSError, subprocess.TimeoutExpired):
            down = [str(self.tree / ".venv" / "bin" / "python"), "-m", "deployments", "down"]
            subprocess.run(down, cwd=self.tree, env=self.env | self.server, capture_output=True, timeout=120)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def opened(root: Path, *, install: bool = False) -> Iterator[Clone]:
    """A clone that is tidied up after use."""
    found = Clone(root, install)
    try:
        found.make()
        yield found
    finally:
        found.close()
