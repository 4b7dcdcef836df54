"""What a service says when it will not or cannot do what was asked.

Each error knows its CloudStack code (also the HTTP status) and its `cserrorcode`, so that the API
has one handler and no view a `try`. The text tells the caller what to do next.
"""

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """Base of all: an unexpected internal error (530)."""

    status = 530
    cs_code = 4250

    def __init__(self, text: str, *, for_operator: str = "", retry_after: int | None = None) -> None:
        """`for_operator` may name hosts and storage, which end users are not shown; `retry_after` is in seconds."""
        super().__init__(text)
        self.text = text
        self.for_operator = for_operator
        self.retry_after = retry_after


class NotAuthenticated(ApiError):
    status, cs_code = 401, 4290


class TooManyRequests(ApiError):
    status, cs_code = 429, 4545


class InvalidParameter(ApiError):
    """A parameter is wrong, or the object is in the wrong state for the request.

    `problems`: what is wrong with which parameter, by name, where that is known.
    """

    status, cs_code = 431, 4350

    def __init__(self, text: str, *, problems: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(text, **more)
        self.problems = problems or {}


class NotInThisProduct(InvalidParameter):
    """Something that CloudStack has and this product leaves out on purpose."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} not in this product. See the documentation, 'What is left out'.")


class UnknownCommand(ApiError):
    status, cs_code = 432, 9999


class PermissionDenied(ApiError):
    status, cs_code = 531, 4365


class InsufficientCapacity(ApiError):
    status, cs_code = 533, 4335


class ResourceUnavailable(ApiError):
    status, cs_code = 534, 4380


class ResourceInUse(ApiError):
    status, cs_code = 536, 4375


class InternalError(ApiError):
    status, cs_code = 530, 4250
