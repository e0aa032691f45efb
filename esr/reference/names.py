"""What the authors' file and folder names say of model, judge and time."""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath

from esr.params import Params

STAMP = re.compile(r"_(20\d{6})(?:_(\d{6}))?(?=_|$)")
KINDS = ("experiment_results_", "experiment_multi_boost_", "experiment_5_prompt_variants_")
TUNED = re.compile(r"-merged|masked-|pct|(^|_)ratio-\d|^run-\d")
FAMILIES = ("llama", "gemma")
SIZE = re.compile(r"(?<!\d)\d+b(?![a-z0-9])")


def folded(name: str) -> str:
    """How the authors turn a model id into a folder name: the part after the last slash, `-` and `.` as `_`."""
    return re.sub(r"[-.]", "_", name.rsplit("/", 1)[-1]).lower()


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    """In params.yaml, or as the file calls it."""
    reference: str
    """As the file calls it."""
    known: bool


class Names:
    """Reference names of models and judges, from params.yaml."""

    def __init__(self, params: Params) -> None:
        self._models: dict[str, str] = {}
        self._sizes: dict[tuple[str, str], str] = {}
        for model in params.models.values():
            for name in (*model.reference_names, model.hub):
                self._models[folded(name)] = model.name
                family, size = _family(name), SIZE.search(folded(name).replace("_", "-"))
                if family and size:
                    self._sizes[family, size[0]] = model.name
        self._judges: dict[str, str] = {}
        self.judges = tuple(params.judges)
        for judge in params.judges.values():
            for name in (judge.name, judge.model, *judge.reference_names):
                self._judges[folded(name)] = judge.name

    def model(self, reference: str) -> Model:
        """By its whole name, else by family and size, under which the authors pool all SAEs of a model; else its own name."""
        found = self._models.get(folded(reference))
        if found is None and not tuned(reference):
            low, family = reference.lower(), _family(reference)
            sizes = sorted((size for of, size in self._sizes if of == family), key=len, reverse=True)
            found = next((self._sizes[family, size] for size in sizes if size in low), None)
        return Model(found or reference or "unknown", reference, found is not None)

    def judge(self, folder: str) -> str:
        plain = folder.removesuffix("_judge")
        return self._judges.get(folded(plain), plain)


def _family(name: str) -> str:
    return next((family for family in FAMILIES if family in name.lower()), "")


def tuned(name: str) -> bool:
    """Whether a model or file name speaks of a fine-tuned model."""
    return bool(TUNED.search(name.lower()))


def judge_folder(path: PurePath) -> str | None:
    """The nearest folder named for a judge."""
    return next((part for part in reversed(path.parts[:-1]) if part.endswith("_judge")), None)


def written(path: PurePath) -> datetime | None:
    """The time in the file's name."""
    match = STAMP.search(path.stem)
    try:
        return datetime.strptime(f"{match[1]}{match[2] or '000000'}", "%Y%m%d%H%M%S") if match else None
    except ValueError:
        return None


def model_in(stem: str) -> str:
    """What stands between the kind and the date; empty when the name has another form."""
    match = STAMP.search(stem)
    kind = next((kind for kind in KINDS if stem.startswith(kind)), None)
    return stem[len(kind) : match.start()] if kind and match and match.start() > len(kind) else ""
