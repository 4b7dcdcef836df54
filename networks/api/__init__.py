"""The commands that show and change the cloud; importing this package registers them."""

from networks.api import infrastructure, keys, networks, offerings, rest, vms  # noqa: F401
