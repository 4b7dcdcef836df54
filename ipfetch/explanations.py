"""Why a NIC has no address, as far as the person who asks may know it."""

from extdhcp_site.accounts.models import Caller
from ipfetch.models import IpFetch, Outcome

# Said of the guest's own addresses. What is said with any other outcome may name a host, or be its words.
ABOUT_THE_GUEST = (Outcome.NONE_YET, Outcome.AMBIGUOUS)


def why(row: IpFetch) -> str:
    """Why the last try has brought no address, and what to do; empty if it has brought one."""
    return "" if row.last_outcome == Outcome.FOUND else row.explanation


def detail_for(caller: Caller, row: IpFetch) -> str:
    """What more is known of the last try. Hosts are shown to root admins only."""
    return row.last_detail if caller.is_root or row.last_outcome in ABOUT_THE_GUEST else ""
