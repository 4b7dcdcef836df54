"""`/api/v1/`: where addresses were seen, and what the queue says of those that are missing."""

from django_filters import rest_framework as filters

from extdhcp_site.api import resources
from extdhcp_site.api.answers import Answer, Moment
from ipfetch import explanations
from ipfetch.models import Flag, IpFetch, Observation
from networks.api.fields import computed, number, text
from networks.hypervisors.base import Source
from networks.models import Nic, VirtualMachine

SOURCES = [(source.value, source.value) for source in Source]


class ObservationAnswer(Answer):
    id = text("uuid", "the observation's id")
    nicid = text("nic.uuid", "the NIC that has or had the address")
    macaddress = text("nic.mac_address", "that NIC's MAC address, lower case")
    networkid = text("nic.network.uuid", "that NIC's network")
    virtualmachineid = text("nic.vm.uuid", "that NIC's VM")
    ipaddress = text("address", "the address, IPv4 or IPv6")
    family = number("family", "4 or 6")
    prefix = number("prefix", "the length of its network's prefix, where the source told it")
    source = text("source", "who told it: agent, agent-unsure, lease, webhook, arp, disk or test-driver")
    confidence = text("confidence", "confirmed, or unconfirmed: a hint")
    flag = text("flag", "outside: not in the network's CIDR; conflict: another NIC of the network has it too")
    firstseen = Moment(source="first_seen_at", help_text="when the source told it first")
    lastseen = Moment(source="last_seen_at", help_text="when the source told it last")
    ended = Moment(
        source="ended_at",
        help_text="since when the source does not tell it any more, or the VM has stopped; absent for a current one",
    )


class ObservationFilter(filters.FilterSet):
    nic = resources.of(Nic, "nic", "the NIC's id")
    vm = resources.of(VirtualMachine, "nic__vm", "the VM's id")
    source = filters.ChoiceFilter(choices=SOURCES, label="who told it")
    flag = filters.ChoiceFilter(choices=Flag.choices, label="outside or conflict")
    current = filters.BooleanFilter(
        field_name="ended_at", lookup_expr="isnull", label="true: what sources say now; false: what has ended"
    )

    class Meta:
        model = Observation
        fields: tuple[str, ...] = ()


class ObservationViewSet(resources.VisibleViewSet):
    """Every address that a source has told of a NIC: what they say now, and the history."""

    queryset = Observation.objects.select_related("nic__network", "nic__vm").defer(
        "nic__vm__user_data", "nic__vm__password"
    )
    serializer_class = ObservationAnswer
    filterset_class = ObservationFilter


class IpFetchAnswer(Answer):
    id = text("nic.uuid", "the id of the NIC that it is about: each is in the queue once")
    macaddress = text("nic.mac_address", "the NIC's MAC address, lower case")
    networkid = text("nic.network.uuid", "the NIC's network")
    virtualmachineid = text("nic.vm.uuid", "the NIC's VM")
    state = text("state", "waiting, found, exhausted: given up, or paused")
    tries = number("tries", "tries since it entered the queue")
    retriesleft = number("retries_left", "counted tries before it is given up")
    nextattempt = Moment(source="next_attempt_at", help_text="when it is asked next; absent for never")
    lastattempt = Moment(source="last_attempt_at", help_text="when it was asked last")
    lastoutcome = text(
        "last_outcome",
        "what came of that: found, none_yet, agent_absent, agent_silent, host_unreachable, ambiguous or not_running",
    )
    why = computed("why that brought no address, and what to do")
    detail = computed("what more is known of it; for administrators where it may name a host")
    source = text("last_source", "who told the address")
    entered = Moment(source="entered_at", help_text="when it entered the queue")
    found = Moment(source="found_at", help_text="when its address was learned")

    def get_why(self, row: IpFetch) -> str | None:
        return explanations.why(row) or None

    def get_detail(self, row: IpFetch) -> str | None:
        return (self.caller and explanations.detail_for(self.caller, row)) or None


class IpFetchFilter(filters.FilterSet):
    nic = resources.of(Nic, "nic", "the NIC's id")
    vm = resources.of(VirtualMachine, "nic__vm", "the VM's id")

    class Meta:
        model = IpFetch
        fields = ("state", "last_outcome")


class IpFetchViewSet(resources.VisibleViewSet):
    """NICs of running VMs in the queue for their address: what the last try has brought, and when the next one is."""

    queryset = IpFetch.objects.select_related("nic__network", "nic__vm").defer(
        "nic__vm__user_data", "nic__vm__password"
    )
    serializer_class = IpFetchAnswer
    filterset_class = IpFetchFilter
    lookup_field = "nic__uuid"


resources.register("observations", ObservationViewSet)
resources.register("ip-fetches", IpFetchViewSet)
