"""Counting: metrics, intervals, agreement. Knows nothing of stores, engines or judges."""
