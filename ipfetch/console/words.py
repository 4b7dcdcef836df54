"""What VMs' pages say beside a NIC's address, or in its place."""

from collections.abc import Mapping, Sequence

from extdhcp_site.accounts.models import Caller
from ipfetch.console.rows import NicRow, rows_of
from networks.console.sections import AddressWords
from networks.models import AddressState, Nic

DOUBTFUL = {
    AddressState.LAST_KNOWN: AddressWords("off", "Last known"),
    AddressState.UNCONFIRMED: AddressWords("warn", "Unconfirmed"),
    AddressState.PINNED: AddressWords("info", "Set by hand"),
}


def words_for(caller: Caller, nics: Sequence[Nic]) -> Mapping[int, AddressWords]:
    rows = rows_of(Nic.objects.filter(pk__in=[nic.pk for nic in nics]), caller)
    return {row.nic.pk: words for row in rows if (words := _words(row))}


def _words(row: NicRow) -> AddressWords | None:
    if row.is_missing:
        return AddressWords(row.state, row.label, " ".join(filter(None, [row.missing, row.todo, row.comes])))
    if row.conflicts:
        return AddressWords("error", "Conflict", "Another NIC of the network has it too.")
    if not row.addresses:
        return AddressWords("off", row.label, row.not_asked)
    return DOUBTFUL.get(AddressState(row.nic.address_state))
