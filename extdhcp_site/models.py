"""What every table of ours shares."""

import uuid
from typing import TypeVar

from django.db import models

M = TypeVar("M", bound=models.Model)


class UuidModel(models.Model):
    """A row that the outside knows by its uuid, never by its number."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)

    class Meta:
        abstract = True


def called(name: str, rows: models.QuerySet[M]) -> M | None:
    """The one of this very name: MariaDB takes résumé for RESUME, and does not see blanks at the end."""
    return next((row for row in rows.filter(name=name) if row.name == name), None)
