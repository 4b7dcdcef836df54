"""Why a NIC has no address, as far as the person who asks may know it."""

from extdhcp_site.accounts.models import Caller
from ipfetch.models import IpFetch, Outcome

# Said of the guest's own addresses. What is said with any other outcome may name a host, or be its words.
ABOUT_THE_GUEST = (Outcome.NONE_YET, Outcome.AMBIGUOUS)
# How a detail begins that is a host's answer, whatever the outcome.
ON_DISK = "On its disk:"


def why(row: IpFetch) -> str:
    """Why the last try has brought no address, and what to do; empty if it has brought one."""
    return "" if row.last_outcome == Outcome.FOUND else row.explanation


def detail_for(caller: Caller, row: IpFetch) -> str:
    """What more is known of the last try. Hosts are shown to root admins only."""
    return row.last_detail if caller.is_root or not is_a_hosts(row) else ""


def is_a_hosts(row: IpFetch) -> bool:
    """Whether the detail may name a host, or be its words."""
    return bool(row.last_detail) and (row.last_outcome not in ABOUT_THE_GUEST or row.last_detail.startswith(ON_DISK))
