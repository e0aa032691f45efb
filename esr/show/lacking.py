"""Why a trial is no outcome: one wording for pages, comparisons and logs."""

NO_REPLY, NOT_ASKED = "no reply yet", "not asked yet"
UNGRADED = """coalesce({judged}.missing, case when len({judged}.attempts) = 0 then 'no attempt with a score'
    when len({judged}.located) = 0 then 'no attempt stands in the reply' end)"""
"""SQL over a row of view judged, under the name that it has there; NULL: it is an outcome."""


def ungraded(judged: str) -> str:
    return UNGRADED.format(judged=judged)
