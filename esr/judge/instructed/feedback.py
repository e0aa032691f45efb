"""What a judge says in its own words beside its scores."""

from esr.judge.instructed.form import OPENING, Malformed, json_object


def feedback(answer: str) -> str:
    """The field of that name, else what stands before the JSON; empty where there is neither."""
    before = OPENING.split(answer, maxsplit=1)[0].strip()
    try:
        said = json_object(answer).get("feedback")
    except Malformed:
        said = None
    if isinstance(said, str) and said.strip():
        return said.strip()
    return "" if before.startswith("{") else before
