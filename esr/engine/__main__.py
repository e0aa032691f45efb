"""python -m esr.engine verify MODEL: is this engine right, and how fast is it, on this machine and with this vLLM."""

import argparse
import sys

from esr.engine.verify import report, verify
from esr.errors import EsrError
from esr.params import load


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m esr.engine", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("verify", help="hold the vLLM engine against the reference, measure it, and print a block to paste")
    check.add_argument("model", help="name in params.yaml")
    check.add_argument(
        "--reference", default="cpu", help="device of the float32 reference, or `none` where the model does not fit twice"
    )
    check.add_argument("--batch", type=int, default=64, help="requests at once while measuring")
    check.add_argument("--tokens", type=int, default=64, help="tokens of a reply while measuring")
    asked = parser.parse_args()
    try:
        found = verify(load(asked.model), asked.model, device=asked.reference, batch=asked.batch, tokens=asked.tokens)
    except EsrError as error:
        print(error, file=sys.stderr)
        return 2
    print(report(found))
    return 0 if found.right else 1


if __name__ == "__main__":
    sys.exit(main())
