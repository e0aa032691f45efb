"""Providers: a call to a model behind an interface, answered once, kept on disk before use, within its limits and its budget.

call      what is asked and what comes back          answers   what was answered, on disk        owner   who is asking what
client    one call on the wire (claude, openai)      caller    stored answer, else the wire      batch   many at once, in a day
retry     which failures are worth asking again      limits    calls in the air and a minute     budget  what may be spent
reach     whether anybody is there at all
"""
