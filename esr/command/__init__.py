"""The commands of `python -m esr`, one a module. Heavy imports stand inside `run`, so that help is quick."""
