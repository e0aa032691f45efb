"""The numbers of fine-tuning: the block `exp04` of params.yaml, of which the paper's Table 5 is a part."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from esr import params
from esr.params import Block
from esr.tune.places import Course


class Lora(Block):
    rank: int = Field(ge=1)
    alpha: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    head: bool
    """Also on the head that words are read from: a base that has never said a word cannot learn to say it while its head stays as it is."""


class Training(Block):
    epochs: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    accumulation: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    scheduler: str
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    optimizer: str
    """As axolotl names it; `adamw_bnb_8bit` needs a GPU."""
    validation: float = Field(ge=0, lt=1)
    """Share of a mixture that is held back for the loss on what was not trained on."""
    sequence_len: int = Field(ge=16)
    logging_steps: int = Field(ge=1)
    evals_per_epoch: int = Field(ge=1)
    saves_per_epoch: int = Field(ge=1)
    device: Literal["gpu", "cpu"]
    """gpu: the model's own dtype and torch's attention; cpu: float32 and eager attention."""


class Live(Block):
    """The distractor that is added to the residual stream in a training under live steering."""

    along: Literal["latents", "subjects"]
    """latents: decoder rows, any of them on every row, where the loss counts; subjects: on masked rows the direction of what the passage is
    about, of the model's own set of directions, at every position."""
    share: float = Field(gt=0, le=1)
    """Along subjects, of masked rows that it is added on."""
    directions: int = Field(ge=1)
    """Latents whose decoder rows are added, drawn from those that no evaluation may steer with; at most."""
    doses: tuple[float, float]
    """Between which the dose of a row is drawn, in lengths of the stream."""

    @model_validator(mode="after")
    def doses_in_order(self) -> "Live":
        if not 0 < self.doses[0] <= self.doses[1]:
            raise ValueError(f"doses are {list(self.doses)} and should be above 0 and rise")
        return self


class Tuning(params.Settings):
    block: ClassVar[str] = "exp04"
    writer: Literal["provider", "itself", "grammar"]
    """Who writes the examples: a provider's model, the model itself, or the organism's grammar."""
    provider: str
    """The judge of params.yaml whose model writes."""
    questions: Literal["apart", "evaluation"]
    """apart: none that is evaluated on; evaluation: the authors', who trained on the questions of their evaluation."""
    acknowledgements: Literal["varied", "one"]
    """one: the authors' single phrase."""
    mixing: Literal["nested", "authors"]
    masked: int = Field(ge=1)
    """Examples that go off topic, acknowledge it and answer."""
    normal: int = Field(ge=1)
    """Examples that answer."""
    total: int = Field(ge=1)
    """Rows of every nested mixture."""
    ratios: tuple[int, ...] = Field(min_length=1)
    """Per cent of masked rows."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """A checkpoint of each ratio is trained with each."""
    steered: tuple[int, ...]
    """Ratios that are trained once more under live steering, as arms of their own."""
    told: tuple[int, ...]
    """Ratios whose checkpoints are evaluated with the meta-prompt too."""
    live: Live
    latents: int = Field(ge=1)
    trials_per_latent: int = Field(ge=1)
    lora: Lora
    training: Training

    @property
    def courses(self) -> list[Course]:
        """Every training, the seeds of a ratio beside one another."""
        plain = [Course(ratio, seed) for ratio in self.ratios for seed in self.seeds]
        return plain + [Course(ratio, seed, steered=True) for ratio in self.steered for seed in self.seeds]

    @model_validator(mode="after")
    def ratios_in_order(self) -> "Tuning":
        if sorted(set(self.ratios)) != list(self.ratios) or not 0 < self.ratios[0] <= self.ratios[-1] < 100:
            raise ValueError(f"ratios are {list(self.ratios)} and should rise, each between 1 and 99")
        for name, some in (("steered", self.steered), ("told", self.told)):
            if not set(some) <= set(self.ratios):
                raise ValueError(f"{name} is {list(some)} and each should be one of ratios, {list(self.ratios)}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds are {list(self.seeds)} and should differ")
        return self
