"""The rater of labels whose file says how concrete they are: what stands there is used, and nobody is asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from esr.errors import JudgeError
from esr.judge import Abilities, JudgeQuestion, Regions
from esr.sae.labels import read_labels, read_ratings
from esr.types import Grade, content_id


class Written:
    """Rates labels by the column `concreteness` of their own file; of equal labels the smaller rating counts."""

    name = "labels"
    abilities = Abilities(ratings=True, local=True)

    def __init__(self, ratings: Mapping[str, float]) -> None:
        self._ratings = ratings
        self.prompt_hash = content_id("written", sorted(ratings.items()), length=16)

    @classmethod
    def of(cls, path: Path) -> "Written | None":
        """None: not every label of the file is rated there."""
        ratings = read_ratings(path)
        if not ratings:
            return None
        found: dict[str, float] = {}
        for latent in read_labels(path):
            if latent.index not in ratings:
                return None
            found[latent.label] = min(ratings[latent.index], found.get(latent.label, 100.0))
        return cls(found)

    def ratings(self, labels: Sequence[str]) -> list[float | None]:
        return [self._ratings.get(label) for label in labels]

    def shown(self, question: JudgeQuestion) -> str:
        raise self._refusal

    def grades(self, questions: Sequence[JudgeQuestion], *, again: bool = False) -> list[Grade]:
        raise self._refusal

    def regions(self, questions: Sequence[JudgeQuestion]) -> list[Regions]:
        raise self._refusal

    @property
    def _refusal(self) -> JudgeError:
        return JudgeError("ratings that stand in a labels file grade no reply; choose a judge of params.yaml")

    def close(self) -> None:
        """It holds nothing."""
