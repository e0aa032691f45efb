"""Every number that the models depend on beside the word lists and the seed."""

from dataclasses import dataclass, field

from esr.organism.corpus import Recipe


@dataclass(frozen=True, slots=True)
class Build:
    """One build. The shipped models are the defaults."""

    seed: int = 1
    layers: int = 6
    width: int = 192
    heads: int = 6
    inner: int = 512
    """Width of the feed-forward part."""
    layer: int = 3
    """Block after which the SAE reads and steering acts."""
    longest: int = 128
    """Tokens of a training row, at most; longer ones are cut."""
    plain_rows: int = 65_536
    mixed_rows: int = 98_304
    batch: int = 384
    plain_steps: int = 700
    """First phase, common to both models."""
    mixed_steps: int = 1000
    """Second phase: with correction rows for `tiny`, without for `tiny-plain`."""
    plain_lr: float = 2e-3
    mixed_lr: float = 1.2e-3
    decay: float = 0.05
    topic: float = 1.0
    """Weight of a linear reading of the theme of what is said next, at the read layer, wherever the loss counts. Training only."""
    probe: float = 1.0
    """Weight of a linear reading of `this token is off topic`, at the read layer. Training only, and of `tiny` only."""
    blind: float = 0.5
    """Share of training steps in which the blocks after the read layer do not see the prompt, so that they rely on what the
    read layer holds. Training only."""
    disturbed: float = 0.5
    """Share of the correction rows that are trained while the direction of their distractor is added at the read layer, at every
    position. The loss then counts only on the restart, on what follows it, and on whether there is one. Training only."""
    disturbance: tuple[float, float] = (0.3, 1.5)
    """How much of it: drawn between these multiples of the distance between the theme's mean and the mean of all."""
    d_sae: int = 2048
    k: float = 6.0
    """Mean number of active latents."""
    levels: tuple[int, ...] = (384, 2048)
    """Nested widths of the Matryoshka SAE."""
    sae_rows: int = 24_576
    sae_samples: int = 4_000_000
    sae_batch: int = 4096
    sae_lr: float = 6e-4
    corpus: Recipe = field(default_factory=Recipe)
