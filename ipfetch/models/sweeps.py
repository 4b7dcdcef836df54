"""What reading addresses has cost, minute by minute."""

from django.db import models


class Sweep(models.Model):
    """One minute of one process: how many NICs it has asked for, and what came of it. Kept for a day."""

    # The beginning of the minute.
    at = models.DateTimeField(db_index=True)
    batches = models.PositiveIntegerField()
    nics = models.PositiveIntegerField()
    found = models.PositiveIntegerField()
    # Batches whose endpoint could not be asked.
    failed = models.PositiveIntegerField()
    # Of all batches together, and of the slowest.
    seconds = models.FloatField()
    slowest = models.FloatField()

    class Meta:
        ordering = ["-at", "-id"]

    def __str__(self) -> str:
        return f"{self.nics} NICs in the minute of {self.at:%Y-%m-%d %H:%M}"
