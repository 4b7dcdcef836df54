"""What the REST API shows of address discovery; importing this package registers it."""

from ipfetch.api import rest  # noqa: F401
