"""Addresses by what the DHCP servers' lease files say."""

from ipfetch.leases.servers import addresses

__all__ = ["addresses"]
