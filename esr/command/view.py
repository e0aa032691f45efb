"""python -m esr view: the store in a browser, live, or as a folder of pages that a colleague opens."""

import sys
import webbrowser
from argparse import ArgumentParser, Namespace
from pathlib import Path

EXAMPLES = """examples:
  python -m esr view                                   # pages over the store, in the browser, until Ctrl-C
  python -m esr view --port 9000 --no-open             # at this port; open the address yourself
  python -m esr view --store ../shared/store           # another store
  python -m esr view --bundle pages exp01 exp03        # these experiments as a folder that opens without a server"""


def arguments(parser: ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("experiments", nargs="*", help="of a bundle: the experiments in it; all when left out")
    parser.add_argument("--port", type=int, help="of the server, on 127.0.0.1 (8731, or any free one when it is taken)")
    parser.add_argument("--store", help="the store's folder or s3://bucket/prefix ($ESR_STORE, or store/ in the checkout)")
    parser.add_argument("--no-open", action="store_true", help="do not open a browser")
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="write the pages with their data into a new folder instead")


def run(args: Namespace) -> int:
    import os

    from esr.command.reading import existing
    from esr.errors import DataError
    from esr.store.snapshot import Snapshot
    from esr.view import server
    from esr.view.address import HOST

    if args.store:
        os.environ["ESR_STORE"] = args.store
    store = Snapshot(existing().root)
    if args.experiments and not args.bundle:
        raise DataError(
            f"a server shows every experiment and was given {', '.join(args.experiments)}; add --bundle FOLDER to choose"
        )
    if args.bundle:
        from esr.view.bundle import write

        found = write(store, args.bundle, args.experiments)
        size = f"{found.size / 1e6:.1f} MB"
        sys.stdout.write(
            f"{args.bundle / 'index.html'}: {found.answers:,} answers in {found.files} files, {size}; opens in any browser\n"
        )
        return 0
    sock = server.bound(args.port)
    address = f"http://{HOST}:{sock.getsockname()[1]}/"
    sys.stdout.write(f"{address}  shows {store.root}; Ctrl-C ends it\n")
    sys.stdout.flush()
    if not args.no_open:
        webbrowser.open(address)
    server.serve(store, sock)
    return 0
