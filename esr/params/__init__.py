"""params.yaml, typed on load and frozen: every number and name of the study.

`load("70b", scale="smoke")` overlays, in this order, the preset, the scale, `by_model[70b]` … on the tree and returns what one
run works with. Scales overlay last, so a smoke run stays small for every model. The study's numbers
have no default in Python; a block of a model, SAE or judge may leave out what esr.params.blocks says.
"""

from esr.params.blocks import (
    Block,
    DirectionsParams,
    JudgeParams,
    Judging,
    ModelParams,
    PackageParams,
    Params,
    Protocol,
    RecipeParams,
    SaeParams,
    Search,
    Settings,
    Work,
)
from esr.params.load import load, parse
from esr.params.places import HOME, path, remote, resolve, source, store

__all__ = [
    "HOME", "Block", "DirectionsParams", "JudgeParams", "Judging", "ModelParams", "PackageParams", "Params", "Protocol", "RecipeParams", "SaeParams", "Search", "Settings", "Work",
    "load", "parse", "path", "remote", "resolve", "source", "store",
]  # fmt: skip
