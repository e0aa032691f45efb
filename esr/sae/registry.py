"""What SAELens' registry says of a release, read from its file; importing sae_lens takes many seconds and is not needed for it."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml

from esr.params import SaeParams


def source(sae: SaeParams) -> str | None:
    """`model/source` on Neuronpedia: what params.yaml says, else the registry; None: neither knows one."""
    return sae.neuronpedia or _entry(sae).get("neuronpedia")


def file(sae: SaeParams) -> tuple[str, str] | None:
    """Hub repository and path in it; None: not known."""
    if sae.loader == "goodfire":
        return (sae.repo, sae.file) if sae.repo and sae.file else None
    found = _entry(sae)
    return (found["repo"], found["path"]) if "path" in found else None


def _entry(sae: SaeParams) -> dict[str, str]:
    return _read(sae.release, sae.id) if sae.loader == "saelens" and sae.release and sae.id else {}


@cache
def _read(release: str, id: str) -> dict[str, str]:
    """The one block of the file that is asked for: the whole takes twenty seconds to parse."""
    spec = find_spec("sae_lens")
    path = Path(spec.origin).parent / "pretrained_saes.yaml" if spec and spec.origin else None
    if path is None or not path.is_file():
        return {}
    lines: list[str] = []
    with path.open(encoding="utf-8") as text:
        for line in text:
            if lines and line[:1] not in (" ", "-", "\n", "#"):
                break
            if lines or line.rstrip() == f"{release}:":
                lines.append(line)
    block = (yaml.load("".join(lines), yaml.CSafeLoader) or {}).get(release, {})
    for entry in block.get("saes", []):
        if entry.get("id") == id:
            return {
                "repo": str(block.get("repo_id")),
                **{key: str(value) for key, value in entry.items() if isinstance(value, str)},
            }
    return {}
