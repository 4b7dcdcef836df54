"""Commands of our own for a NIC's place in the queue. CloudStack has none: its loop cannot be told anything."""

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.parameters import ObjectField, Params, Values, visible
from extdhcp_site.api.registry import EVERYBODY, Command, command
from ipfetch import on_demand
from ipfetch.api.rest import IpFetchAnswer
from ipfetch.models import IpFetch
from networks.models import Nic

SEARCH = ("addressfetch", IpFetchAnswer)


class NicParams(Params):
    nicid = ObjectField("The NIC's id.", visible(Nic), required=True)


@command(since="1.2", roles=EVERYBODY)
class FetchNicAddress(Command):
    """Ask for a NIC's address now, whenever its next try is due; it costs none of its tries."""

    params = NicParams
    answer = SEARCH

    def run(self, caller: Caller, params: Values) -> IpFetch:
        return on_demand.try_now(params["nicid"], caller)


@command(since="1.2", roles=EVERYBODY)
class ResetNicAddressTries(Command):
    """Look for a NIC's address anew, with all its tries, as after a start of its VM."""

    params = NicParams
    answer = SEARCH

    def run(self, caller: Caller, params: Values) -> IpFetch:
        return on_demand.reset_tries(params["nicid"], caller)


@command(since="1.2", roles=EVERYBODY)
class PauseNicAddress(Command):
    """Ask nobody for a NIC's address until resumeNicAddress, or until its VM starts anew."""

    params = NicParams
    answer = SEARCH

    def run(self, caller: Caller, params: Values) -> IpFetch:
        return on_demand.pause(params["nicid"], caller)


@command(since="1.2", roles=EVERYBODY)
class ResumeNicAddress(Command):
    """Ask for a NIC's address again, at once and with all its tries, after pauseNicAddress."""

    params = NicParams
    answer = SEARCH

    def run(self, caller: Caller, params: Values) -> IpFetch:
        return on_demand.resume(params["nicid"], caller)
