"""What deployments/prefect.yaml declares, laid before a server through Prefect's API.

`prefect deploy --all` does the same with a thousand lines and a start of Prefect's command line; here a flow is loaded once for all
its models.
"""

import importlib
from pathlib import Path
from typing import Any

import yaml

from esr.errors import ParamsError, one_of

KNOWN = {
    "name", "entrypoint", "tags", "parameters", "work_pool", "concurrency_limit", "schedules", "description", "version", "job_variables"
}  # fmt: skip
"""Keys of a deployment that are understood here."""


def declared(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = yaml.safe_load(file.read_text())["deployments"]
    for row in rows:
        for key in row:
            if key not in KNOWN:
                raise ParamsError(one_of("key", key, sorted(KNOWN), f"the deployment {row.get('name')!r} of {file.name}"))
        if row.get("schedules"):
            raise ParamsError(f"the deployment {row['name']!r} of {file.name} has a schedule; deploy it with `prefect deploy`")
    return rows


def deploy(client: Any, file: Path, home: Path) -> list[str]:
    """Makes what is missing, brings the rest up to date; can be repeated. The names, as `prefect deployment run` wants them."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyOptions
    from prefect.utilities.callables import parameter_schema

    names, flows = [], {}
    for row in declared(file):
        entrypoint = row["entrypoint"]
        if entrypoint not in flows:
            module, name = entrypoint.replace(".py:", ":").replace("/", ".").split(":")
            flow = getattr(importlib.import_module(module), name)
            flows[entrypoint] = flow, client.create_flow(flow), parameter_schema(flow).model_dump()
        flow, flow_id, schema = flows[entrypoint]
        limit = ConcurrencyLimitConfig.model_validate(row["concurrency_limit"]) if row.get("concurrency_limit") else None
        client.create_deployment(
            flow_id=flow_id,
            name=row["name"],
            version=row.get("version"),
            description=row.get("description") or flow.description,
            tags=row.get("tags"),
            parameters=row.get("parameters"),
            parameter_openapi_schema=schema,
            enforce_parameter_schema=True,
            work_pool_name=row["work_pool"]["name"],
            job_variables=row.get("job_variables"),
            concurrency_limit=limit.limit if limit else None,
            concurrency_options=ConcurrencyOptions(collision_strategy=limit.collision_strategy) if limit else None,
            entrypoint=entrypoint,
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(home)}}],
        )
        names.append(f"{flow.name}/{row['name']}")
    return names
