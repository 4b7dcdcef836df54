"""What the APIs show and change of address discovery; importing this package registers it."""

from ipfetch.api import nics, rest  # noqa: F401
