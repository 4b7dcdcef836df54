"""What every table of ours shares."""

import uuid

from django.db import models


class UuidModel(models.Model):
    """A row that the outside knows by its uuid, never by its number."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)

    class Meta:
        abstract = True
