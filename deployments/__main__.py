"""`python -m deployments up`: a Prefect server with every flow for every model and a worker, in the background until `down`.

    python -m deployments up              server, work pools, deployments and a worker; can be repeated, mends what is broken
    python -m deployments up --gpus 0 1   a worker for each word, which is its CUDA_VISIBLE_DEVICES: 0 of the pool gpu1, 0,1 of gpu2tp, where a model takes two
    python -m deployments status          what runs and whether it answers
    python -m deployments down            ends all that `up` started
    python -m deployments doctor          what server, pools, workers and store lack, each with the line that mends it
    python -m deployments env             the settings that server, worker and shell share, for `eval "$(…)"`
    python -m deployments init            only the work pools and the automation, on a server of your own

PREFECT_API_URL names the server (default: http://127.0.0.1:4200/api); one on another machine is used and not started.
"""

import argparse
import shlex
import sys

from deployments import doctor, pools, service
from esr.errors import EsrError
from tasks import environment


def main(argv: list[str]) -> int:
    words = argparse.ArgumentParser(
        prog="python -m deployments", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("word", choices=["up", "status", "down", "doctor", "env", "init"])
    words.add_argument("--gpus", nargs="*", default=[], metavar="DEVICES", help="for up: a worker for each, such as 0 1 or 0,1")
    asked = words.parse_args(argv)
    try:
        match asked.word:
            case "up":
                for line in service.up(asked.gpus):
                    print(line, flush=True)
            case "status":
                lines, healthy = service.status()
                print("\n".join(lines))
                return 0 if healthy else 1
            case "down":
                print("\n".join(service.down()))
            case "doctor":
                every = list(doctor.found())
                print("\n".join(map(str, every)))
                return 0 if all(one.well for one in every) else 1
            case "env":
                settings = environment.settings(environment.home()) | {"PREFECT_API_URL": service.url()}
                service.folder()
                print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in settings.items()))
            case "init":
                service.reach(service.url())
                print("\n".join(pools.make()))
        return 0
    except EsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
