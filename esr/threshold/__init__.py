"""The search for the boost at which a latent's first attempts meet the target; it asks and is told, and never calls a model."""

from esr.threshold.bisection import PATIENCE, Ask, Bisection, Found, Interval, Score, Search, Status

__all__ = ["PATIENCE", "Ask", "Bisection", "Found", "Interval", "Score", "Search", "Status"]
