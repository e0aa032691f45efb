"""Prefect deployments: prefect.yaml, and `python -m deployments` for what it cannot say."""
