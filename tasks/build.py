"""Directions that are no latents."""

from esr.study import along
from esr.study.along import Made
from esr.study.study import Study
from tasks.cache import step


@step("build.directions")
def directions(study: Study, name: str) -> Made:
    """A set of named directions, of contrasted texts or from a file, and the length of the stream that they are added to."""
    return along.directions(study, name)
