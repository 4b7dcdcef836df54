"""Why a NIC has no address (external DHCP/DNS spec, "Troubleshooting")."""

from collections.abc import Iterator

from ipfetch.models import IpFetch
from networks.checks import Check
from networks.models import Nic, VirtualMachine


def address_checks(vm: VirtualMachine) -> Iterator[Check]:
    external = set(Nic.objects.external_dhcp().filter(vm=vm).values_list("pk", flat=True))
    rows = {row.nic_id: row for row in IpFetch.objects.filter(nic__vm=vm)}
    for nic in vm.nics.all():
        name = f"address of {nic.mac_address}"
        if nic.ip4_address:
            yield Check(name, True, f"{nic.ip4_address}, {nic.get_address_state_display().lower()}")
        elif nic.pk not in external:
            yield Check(name, None, f"Network {nic.network} has no external DHCP server: nothing is looked for.")
        elif row := rows.get(nic.pk):
            yield _waiting(name, row)
        else:
            yield Check(name, None, "It is looked for once the VM runs.")


def _waiting(name: str, row: IpFetch) -> Check:
    when = f" Next try at {row.next_attempt_at:%H:%M:%S} UTC." if row.next_attempt_at else ""
    text = f"none, {row.get_state_display().lower()}, {row.retries_left} tries left. {row.explanation}{when}"
    return Check(name, False if row.state == IpFetch.State.EXHAUSTED else None, text)
