"""What the latents of one call have in common: a prior over the family, learnt from all their answers (empirical Bayes).

θ: a bell, bent towards the smoothed sum of the latents' own posteriors, over a thin layer of anything within the bounds; shapes: weights
that may differ along θ, since a latent with a high threshold often has a flat curve; edges: one weight each. Each part begins at
what the parameters say and counts that as a few latents, so that one latent alone is searched with the parameters' prior.
"""

import numpy as np

from esr.threshold.family import ALWAYS, EDGES, NEVER, Family, Floats, Singles

BELL = 5.0
"""How many latents the prior's mean and spread are worth."""
SHAPES, LOCAL = 4.0, 10.0
"""How many latents even weights of the shapes are worth, and how many the weights of all latents are worth at one θ."""
EDGE, EDGE_WORTH = 0.02, 10.0
"""Prior weight of never and always biting, and how many latents it is worth."""
WIDE = 0.1
"""Prior weight of a threshold anywhere between the bounds."""
BEND = 0.5
"""Share of the θ prior that the smoothed posteriors may take over."""
SMOOTH = 0.5
"""Width of the smoothing, in standard deviations of the bell."""


class Prior:
    def __init__(self, family: Family) -> None:
        self._family, self._spacing = family, family.spacing
        self._anywhere = self._spacing / self._spacing.sum()
        self._mean, self._std, self._wide = family.mean, family.std, WIDE
        self._edges: Floats = np.full(2, EDGE)
        self._core = self._bell()
        self._shapes: Floats = np.full((len(family.thetas), family.shapes), 1 / family.shapes)

    def weights(self) -> Singles:
        """Of every cell; sums to 1."""
        inner = (1 - self._edges.sum()) * self._theta()[:, None] * self._shapes
        never, always = np.full(len(NEVER), self._edges[0] / len(NEVER)), np.full(len(ALWAYS), self._edges[1] / len(ALWAYS))
        return np.asarray(np.concatenate([inner.ravel(), never, always]), np.float32)

    def learn(self, likelihood: Singles, steps: int) -> None:
        """Steps of expectation and maximisation over latents × cells."""
        near = np.exp(-0.5 * ((self._family.thetas[:, None] - self._family.thetas) / (SMOOTH * self._std)) ** 2)
        spread = near * self._spacing[:, None]
        self._near = near.astype(np.float32), (spread / spread.sum(axis=0)).astype(np.float32)
        for _ in range(steps):
            self._step(likelihood)

    def _step(self, likelihood: Singles) -> None:
        weights = self.weights()
        share = weights * ((1 / (likelihood @ weights)) @ likelihood)
        latents, thetas = len(likelihood), self._family.thetas
        by_cell = share[:-EDGES].reshape(self._shapes.shape)
        theta = by_cell.sum(axis=1).astype(np.float64)
        bell = theta * (1 - self._wide) * self._core / self._theta()
        total = bell.sum()
        edges = share[-EDGES : -len(ALWAYS)].sum(), share[-len(ALWAYS) :].sum()
        self._edges = (np.array(edges, np.float64) + EDGE * EDGE_WORTH) / (latents + EDGE_WORTH)
        self._wide = float((theta.sum() - total + WIDE * EDGE_WORTH) / (theta.sum() + EDGE_WORTH))
        start = self._family.mean
        self._mean = float((bell @ thetas + start) / (total + 1))
        squares = bell @ (thetas - self._mean) ** 2 + (BELL - 1) * self._family.std**2 + (self._mean - start) ** 2
        self._std = float(np.sqrt(squares / (total + BELL - 1)))
        near, spread = self._near
        everywhere = by_cell.sum(axis=0) + SHAPES / self._family.shapes
        local = near @ by_cell + LOCAL * everywhere / everywhere.sum()
        self._shapes = local / local.sum(axis=1, keepdims=True)
        core = BEND * (spread @ bell) + ((1 - BEND) * total + BELL) * self._bell()
        self._core = core / core.sum()

    def _theta(self) -> Floats:
        return np.asarray((1 - self._wide) * self._core + self._wide * self._anywhere)

    def _bell(self) -> Floats:
        bell = np.exp(-0.5 * ((self._family.thetas - self._mean) / self._std) ** 2) * self._spacing + 1e-300
        return np.asarray(bell / bell.sum(), np.float64)
