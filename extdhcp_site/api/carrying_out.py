"""A command of a caller's, from its parameters to its answer: one way for both protocols."""

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.parameters import Values
from extdhcp_site.api.registry import Command
from extdhcp_site.jobs import services as jobs


def carry_out(command: type[Command], caller: Caller, validate: Callable[[], Values]) -> dict[str, Any]:
    """What the command answers to the values that `validate` gives.

    An object may go away between the two. Then `validate` is asked once more, and says it in the words for an object
    that is not there.
    """
    values = validate()
    try:
        return jobs.patiently(lambda: command().respond(caller, values))
    except (ObjectDoesNotExist, IntegrityError):
        validate()
        raise
