"""README.md and the pages beside it, played line by line in a fresh clone, as a new user would: what is typed, how it ended, how long it took.

python scripts/play_readme.py                 # with this checkout's .venv: minutes
python scripts/play_readme.py --install       # `make setup` really installs: more minutes, and the network
python scripts/play_readme.py --show          # with all that comes out

tests/test_play.py does the same in CI; tests/promises.py says what each line promises, and which are played otherwise than printed and why.
"""

import argparse
import sys
import tempfile
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HOME), str(HOME / "tests")]

from player import opened  # noqa: E402  # lies in tests/
from promises import OTHERWISE, dirt, otherwise, play, to_play  # noqa: E402  # as above


def main() -> int:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--install", action="store_true", help="install into the clone instead of linking this checkout's .venv")
    words.add_argument("--show", action="store_true", help="print what each line prints")
    asked = words.parse_args()
    failed, total = 0, 0.0
    with tempfile.TemporaryDirectory() as root:
        for clone in opened(Path(root), install=asked.install):
            for line in to_play():
                how = otherwise(line)
                say(f"$ {line.command}   [{line.page}]" + (f"\n  not as printed: {how.why}" if how else ""))
                try:
                    done = play(clone, line)
                except (AssertionError, TimeoutError) as error:
                    failed += 1
                    say(f"  FAILED: {error}")
                    continue
                total += done.took
                say((f"{done}\n" if asked.show else "") + f"  ended with {done.code} after {done.took:.1f} s")
            if left := dirt(clone):
                failed += 1
                say(f"FAILED: changed in the clone: {', '.join(left)}")
            elif other := clone.dirt():
                say(f"results that are not the recorded ones, as on another processor: {', '.join(other)}")
    for one in OTHERWISE:
        if one.elsewhere or one.left_out:
            say(f"not played: {one.command}   [{one.page}]: {one.why}" + (f"; {one.elsewhere} plays it" if one.elsewhere else ""))
    say(f"{len(to_play())} lines in {total:.0f} s, {failed} failed")
    return 1 if failed else 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
