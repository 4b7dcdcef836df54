"""Why a NIC has no address (external DHCP/DNS spec, "Troubleshooting"): each point as it is now, on the live system."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address

from django.utils import timezone

from ipfetch import explanations, leases
from ipfetch.addresses import NicFacts, can_be_leased, reported_for, settles
from ipfetch.chains import Chains
from ipfetch.models import Flag, IpFetch, LeaseServer, LeaseToken, Observation, Outcome
from networks.checks import Check
from networks.hypervisors.base import AddressReader, HypervisorError, Reading, Source
from networks.models import AddressState, Nic, VirtualMachine, VmState
from networks.models.offerings import OsFamily
from networks.services.places import place, within
from networks.troubleshooting import tools

GUEST_SECONDS = 20.0
OVERDUE = timedelta(minutes=2)
HELD = [AddressState.CONFIRMED, AddressState.PINNED]
State = IpFetch.State


def address_checks(vm: VirtualMachine, nics: Sequence[Nic]) -> Iterator[Check]:
    now = timezone.now()
    external = set(Nic.objects.external_dhcp().filter(vm=vm).values_list("pk", flat=True))
    rows = {row.nic_id: row for row in IpFetch.objects.filter(nic__vm=vm)}
    asked = [nic for nic in nics if nic.pk in external]
    runs = vm.state == VmState.RUNNING and vm.host is not None
    if asked and runs:
        yield _chain(vm)
    reading = _reading(vm) if asked and runs else None
    for nic in nics:
        row = rows.get(nic.pk)
        yield _address(nic, row, is_asked_for=nic.pk in external)
        yield from _range(nic)
        if nic not in asked:
            continue
        if reading is not None:
            yield _guest(vm, nic, reading)
        yield _lease(nic, now)
        yield from _observed(nic)
        if runs:
            yield _queue(nic, row, now)


def _chain(vm: VirtualMachine) -> Check:
    chain = Chains.now().of(vm.zone_id, vm.hypervisor, vm.template.os_family == OsFamily.WINDOWS)
    order = ", ".join(source.value for source in chain)
    disk = ""
    if Source.DISK in chain and vm.host and not vm.host.endpoint.disk_access:
        disk = f" The disk is not read: endpoint {vm.host.endpoint} does not allow it."
    return Check("sources", True, f"asked in this order: {order}.{disk}", public=not disk)


def _reading(vm: VirtualMachine) -> Reading | HypervisorError | None:
    """What the guest says at this moment; None if there is nobody to ask, or no time for it."""
    assert vm.host
    try:
        hypervisor = place(vm.host).hypervisor
        if not isinstance(hypervisor, AddressReader):
            return None
        return next((reading for _, reading in hypervisor.read_addresses([vm.on_host], within(GUEST_SECONDS))), None)
    except HypervisorError as error:
        return error


def _address(nic: Nic, row: IpFetch | None, *, is_asked_for: bool) -> Check:
    name = f"address of {nic.mac_address}"
    if address := nic.ip4_address or nic.ip6_address:
        seen = f", last seen at {nic.address_seen_at:%Y-%m-%d %H:%M:%S} UTC" if nic.address_seen_at else ""
        is_told = nic.address_source and nic.address_state != AddressState.PINNED
        source = f", told by {nic.address_source}" if is_told else ""
        is_sure = nic.address_state in HELD
        text = f"{address}, {nic.get_address_state_display().lower()}{source}{seen}"
        return Check(name, is_sure or None, text, public=True)
    if not is_asked_for:
        return Check(
            name, None, f"Network {nic.network} has no external DHCP server: nothing is looked for.", public=True
        )
    if row is None:
        return Check(name, None, "none; it is looked for once the VM runs.", public=True)
    return Check(name, False if row.state == State.EXHAUSTED else None, f"none. {row.explanation}", public=True)


def _range(nic: Nic) -> Iterator[Check]:
    """Whether the address is one that the network's DHCP server can have given."""
    if not nic.ip4_address or not nic.network.cidr:
        return
    name, network, ip = f"range of {nic.mac_address}", nic.network, IPv4Address(nic.ip4_address)
    if not can_be_leased(_facts(nic), ip):
        advice = "Compare the network with the DHCP server's range."
        yield Check(name, False, f"{ip} is not an address for guests of {network.cidr}. {advice}", public=True)
    elif network.start_ip and not IPv4Address(network.start_ip) <= ip <= IPv4Address(network.end_ip):
        mirrored = f"{network.start_ip} to {network.end_ip}"
        yield Check(
            name,
            None,
            f"{ip} is in {network.cidr}, outside {mirrored}: a reservation, or the range here is not up to date",
            public=True,
        )
    else:
        yield Check(name, True, f"{ip} is in {network.cidr}", public=True)


def _guest(vm: VirtualMachine, nic: Nic, reading: Reading | HypervisorError) -> Check:
    name = f"guest's answer for {nic.mac_address}"
    # Where another source has told the address, the guest's silence decides nothing.
    missed = None if nic.address_state in HELD else False
    if isinstance(reading, HypervisorError):
        return Check(name, None, f"It could not be asked: {reading}")
    if reading.problem:
        outcome = Outcome(reading.problem.value)
        advice = f"{outcome.label}. {tools(vm)}" if outcome == Outcome.AGENT_ABSENT else outcome.advice
        return Check(name, missed, advice, public=True)
    reported = reported_for(_facts(nic), reading.addresses)
    told = ", ".join(str(each.ip) for each in reported)
    if not reported:
        text = f"The agent answers, and this NIC has no address. {Outcome.NONE_YET.advice}"
        return Check(name, missed, text, public=True)
    if not settles(_facts(nic), reported):
        text = f"It has {told}: no IPv4 address of {nic.network.cidr}. {Outcome.AMBIGUOUS.advice}"
        return Check(name, False, text, public=True)
    differs = nic.ip4_address and nic.ip4_address not in told.split(", ")
    note = f"; {nic.ip4_address} is written down until the next try" if differs else ""
    if differs and nic.address_state == AddressState.PINNED:
        note = f"; {nic.ip4_address} was set by hand, and stays"
    return Check(name, True, f"{told}{note}", public=True)


def _lease(nic: Nic, now: datetime) -> Check:
    """What the network's DHCP servers have leased to it."""
    name = f"lease of {nic.mac_address}"
    found = leases.addresses({nic.network_id}, {nic.mac_address}, now).get((nic.network_id, nic.mac_address))
    # After that: each server says now whether it could be read.
    servers = list(LeaseServer.objects.serving({nic.network_id}))
    tokens = LeaseToken.objects.usable().filter(network=nic.network_id)
    names = ", ".join(server.name for server in servers)
    problems = " ".join(f"{server.name}: {server.last_error}" for server in servers if server.last_error)
    reports = [
        f"{token.name} reported last at {token.last_used_at:%Y-%m-%d %H:%M:%S} UTC."
        if token.last_used_at
        else f"{token.name} has never reported."
        for token in tokens
    ]
    if found:
        return Check(name, True, " ".join([f"{found.ip}, by {names}.", *filter(None, [problems]), *reports]))
    if problems:
        return Check(name, False, " ".join([problems, *reports]))
    if servers:
        missed = None if nic.address_state in HELD else False
        advice = "Look at the server's log for the MAC address, and check the VLAN."
        return Check(name, missed, " ".join([f"{names} has none for this MAC address. {advice}", *reports]))
    if reports:
        return Check(name, None, " ".join(reports))
    text = f"No DHCP server of network {nic.network} lets its leases be read, or reports them."
    return Check(name, None, text, public=True)


def _observed(nic: Nic) -> Iterator[Check]:
    """What each source said last: all that it says still, else the last that it did."""
    rows = list(Observation.objects.filter(nic=nic))
    says_still = {row.source for row in rows if row.ended_at is None}
    told: set[str] = set()
    for row in rows:
        if row.ended_at is None or (row.source not in says_still and row.source not in told):
            told.add(row.source)
            yield _observation(nic, row)


def _observation(nic: Nic, row: Observation) -> Check:
    ended = f", not any more since {row.ended_at:%Y-%m-%d %H:%M:%S} UTC" if row.ended_at else ""
    text = f"{row.address}, {row.confidence}, last at {row.last_seen_at:%Y-%m-%d %H:%M:%S} UTC{ended}"
    passed: bool | None = None if row.ended_at else True
    if row.flag == Flag.CONFLICT:
        others = Nic.objects.filter(network=nic.network_id, ip4_address=row.address, address_state__in=HELD)
        names = ", ".join(f"{other} ({other.mac_address})" for other in others.exclude(pk=nic.pk).select_related("vm"))
        passed, text = (
            False,
            f"{text}. It is also that of {names or 'another NIC'}: look for a fixed address in a guest.",
        )
    elif row.flag == Flag.OUTSIDE:
        passed, text = None, f"{text}. It is no address for guests of {nic.network.cidr}, and not taken."
    # A conflict names another's VM.
    return Check(f"{row.source} about {nic.mac_address}", passed, text, public=row.flag != Flag.CONFLICT)


def _queue(nic: Nic, row: IpFetch | None, now: datetime) -> Check:
    name = f"queue of {nic.mac_address}"
    if row is None:
        return Check(name, None, "not in the queue; it enters within a minute while a qcluster process runs")
    made = f"{row.tries} {_tries(row.tries)} made"
    left = f"{row.retries_left} counted {_tries(row.retries_left)} left" if row.state == State.WAITING else ""
    last = f"the last try was at {row.last_attempt_at:%H:%M:%S} UTC" if row.last_attempt_at else "not tried yet"
    following = (
        f"the next one is at {row.next_attempt_at:%H:%M:%S} UTC" if row.next_attempt_at else "there is no next one"
    )
    text = ", ".join(filter(None, [row.get_state_display().lower(), made, left, last, following]))
    if row.last_outcome and row.last_outcome != Outcome.FOUND:
        text = " ".join(filter(None, [f"{text}. {row.explanation}", row.last_detail]))
    endpoint = nic.vm.host.endpoint if nic.vm.host else None
    left_alone = endpoint and endpoint.retry_at and endpoint.retry_at > now
    late = row.state == State.WAITING and row.next_attempt_at and row.next_attempt_at < now - OVERDUE
    held = row.claimed_until and row.claimed_until > now
    if late and not held and not left_alone:
        return Check(name, False, f"{text}. That is overdue: see that qcluster runs, and what its log says.")
    passed = {State.FOUND: True, State.EXHAUSTED: False}.get(State(row.state))
    return Check(name, passed, text, public=not explanations.is_a_hosts(row))


def _tries(count: int) -> str:
    return "try" if count == 1 else "tries"


def _facts(nic: Nic) -> NicFacts:
    gateway = IPv4Address(nic.network.gateway) if nic.network.gateway else None
    return NicFacts(nic.mac_address, nic.network.ip4_network, gateway)
