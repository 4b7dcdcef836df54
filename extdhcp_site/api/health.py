"""Whether this process is up, and whether it can do its work: for load balancers and scripts."""

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse


def healthz(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "up"})


def readyz(request: HttpRequest) -> JsonResponse:
    """503 until the database answers and has every table."""
    try:
        waiting = _migrations_waiting()
    except DatabaseError:
        return _not_ready("The database does not answer.")
    return _not_ready("Run: manage.py migrate") if waiting else JsonResponse({"status": "ready"})


def _not_ready(reason: str) -> JsonResponse:
    return JsonResponse({"status": "not ready", "reason": reason}, status=503)


def _migrations_waiting() -> bool:
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
