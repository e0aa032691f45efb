"""Whether the workers of a fleet answer alike: of one engine, and of the same directions under a name."""

from collections.abc import Mapping

OF_THE_MACHINE = {"sites"}
"""Keys of a fingerprint that may differ: this digest is also of the folder that an SAE lies in, which another machine's checkout has
elsewhere. What else it is of comes from the run, or has a key of its own."""


def other_engine(number: int, fingerprint: Mapping[str, str], fleet: Mapping[str, str]) -> str:
    """In what this worker's engine differs from the fleet's, in a sentence; empty: in nothing."""
    keys = sorted({*fingerprint, *fleet} - OF_THE_MACHINE)
    apart = [
        f"{key} is {fingerprint.get(key) or 'missing'} and not {fleet.get(key) or 'missing'}"
        for key in keys
        if fingerprint.get(key) != fleet.get(key)
    ]
    return f"worker {number} has another engine than the first that was open: {', '.join(apart)}" if apart else ""


def other_directions(number: int, name: str, sha256: str, error: str, fleet: str) -> str:
    """In what the directions that it has read differ from the fleet's; empty: in nothing. `error`: what kept it from reading them."""
    if error:
        return f"worker {number} cannot load the directions {name!r} that the others have: {error}"
    if sha256 == fleet:
        return ""
    return f"worker {number} read other directions {name!r} than the others have: {sha256[:16]} and not {fleet[:16]}"
