"""The queue of NICs that wait for an address, and all that was ever seen of addresses."""

from ipfetch.models.leases import LeaseServer, LeaseToken, create_lease_token
from ipfetch.models.observations import AddressChain, Confidence, Flag, Observation
from ipfetch.models.queue import NEXT_STEP, IpFetch, Outcome
from ipfetch.models.sweeps import Sweep

__all__ = [
    "NEXT_STEP",
    "AddressChain",
    "Confidence",
    "Flag",
    "IpFetch",
    "LeaseServer",
    "LeaseToken",
    "Observation",
    "Outcome",
    "Sweep",
    "create_lease_token",
]
