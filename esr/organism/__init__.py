"""The shipped tiny models: grammar → corpus → models → SAE → labels. `python -m esr.organism build` makes them again.

Nothing here is used while an experiment runs: engines, judge and flows see two Hugging Face folders and a SAELens folder.
"""
