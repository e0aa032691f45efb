"""python -m esr.engine verify MODEL [--server URL]: is this engine right, and how fast is it, on this machine and with this vLLM."""

import argparse
import os
import sys
from collections.abc import Sequence

from esr.engine.server import Server
from esr.engine.verify import report, verify, verify_server
from esr.errors import EsrError
from esr.params import load


def main(line: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m esr.engine", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("verify", help="hold the vLLM engine against the reference, measure it, and print a block to paste")
    check.add_argument("model", help="name in params.yaml")
    check.add_argument(
        "--reference", default="cpu", help="device of the float32 reference, or `none` where the model does not fit twice"
    )
    check.add_argument("--batch", type=int, default=64, help="requests at once while measuring")
    check.add_argument("--tokens", type=int, default=64, help="tokens of a reply while measuring")
    check.add_argument("--server", metavar="URL", help="ask a running `vllm serve` with the plugin and open no engine here")
    check.add_argument("--key", default=os.environ.get("VLLM_API_KEY", ""), help="of the server; $VLLM_API_KEY unless given")
    check.add_argument("--served-as", default="", metavar="NAME", help="the model's name at the server, where it has another there")
    asked = parser.parse_args(line)
    settings = {"device": asked.reference, "batch": asked.batch, "tokens": asked.tokens}
    try:
        params = load(asked.model)
        if asked.server:
            with Server.open(params, asked.model, asked.server, asked.key, asked.served_as) as server:
                found = verify_server(params, asked.model, server, **settings)
        else:
            found = verify(params, asked.model, **settings)
    except EsrError as error:
        print(error, file=sys.stderr)
        return 2
    print(report(found))
    return 0 if found.right else 1


if __name__ == "__main__":
    sys.exit(main())
