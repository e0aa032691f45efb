"""The search for the boost at which a latent's first attempts meet the target; it asks and is told, and never calls a model."""

from esr.threshold.bisection import Bisection, Interval, Status
from esr.threshold.pool import Ask
from esr.threshold.search import PATIENCE, Found, Score, Search

__all__ = ["PATIENCE", "Ask", "Bisection", "Found", "Interval", "Score", "Search", "Status"]
