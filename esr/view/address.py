"""Where the pages of a server are: on this machine alone, at the usual port unless another was asked for."""

HOST = "127.0.0.1"
PORT = 8731


def of_run(run: str) -> str:
    """Of a run's page at the usual port, by the id of its row in the store."""
    return f"http://{HOST}:{PORT}/#/runs?run={run}"
