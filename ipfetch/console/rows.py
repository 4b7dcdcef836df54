"""A NIC as lists and pages show it: its address, or in words why there is none."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Prefetch

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console.templatetags.console import in_words, since, until
from ipfetch import explanations
from ipfetch.configuration import EARLY_RETRY
from ipfetch.counts import OFF
from ipfetch.models import NEXT_STEP, Flag, IpFetch, Observation, Outcome
from networks.models import AddressState, Nic
from networks.models.vms import NicQuerySet, VmState

LABELS = {
    IpFetch.State.EXHAUSTED: "Given up",
    IpFetch.State.WAITING: "Waiting",
    IpFetch.State.PAUSED: "Paused",
    IpFetch.State.FOUND: "Found",
    OFF: "Not asked",
}
NOT_TRIED = "Not tried yet"


@dataclass(frozen=True)
class NicRow:
    """`works` is what is known to be right; `conflicts` and `outside` are addresses that are not simply its own."""

    nic: Nic
    fetch: IpFetch | None
    works: str
    detail: str
    unseen: str
    next_try_at: datetime | None
    conflicts: list[str]
    outside: list[str]

    @property
    def state(self) -> str:
        return self.fetch.state if self.fetch else OFF

    @property
    def label(self) -> str:
        return LABELS[self.state]

    @property
    def is_missing(self) -> bool:
        return self.state not in (IpFetch.State.FOUND, OFF)

    @property
    def missing(self) -> str:
        """The outcome in words."""
        outcome = self.fetch.last_outcome if self.fetch else ""
        return f"{Outcome(outcome).label if outcome else NOT_TRIED}."

    @property
    def todo(self) -> str:
        outcome = self.fetch.last_outcome if self.fetch else ""
        return NEXT_STEP.get(Outcome(outcome), "") if outcome else ""

    @property
    def reason(self) -> str:
        """The heading under which it stands in a list of those that are missing."""
        return LABELS[IpFetch.State.PAUSED] if self.state == IpFetch.State.PAUSED else self.missing.removesuffix(".")

    @property
    def addresses(self) -> list[str]:
        return [address for address in (self.nic.ip4_address, self.nic.ip6_address) if address]

    @property
    def not_asked(self) -> str:
        return not_asked(self.nic)

    @property
    def is_due(self) -> bool:
        return self.next_try_at is None or until(self.next_try_at) < timedelta(seconds=1)

    @property
    def tries(self) -> str:
        """How many are left and made."""
        assert self.fetch
        left = f"{self.fetch.retries_left} {_tries(self.fetch.retries_left)} left"
        return f"{left} · {self.fetch.tries} made"

    @property
    def took(self) -> str:
        """How long it took until the address was known, or how long it has not been so far."""
        if self.nic.address_state == AddressState.PINNED:
            return "set by hand"
        if self.fetch is None:
            return "not looked for"
        if self.fetch.found_at:
            return f"took {in_words(self.fetch.found_at - self.fetch.entered_at)}"
        return f"looked for {in_words(since(self.fetch.entered_at))} so far"

    @property
    def told_by(self) -> str:
        return self.nic.address_source or "nobody yet"

    @property
    def said(self) -> str:
        """All of it as one text, for exports."""
        known = ", ".join(self.addresses)
        if known and not self.is_missing:
            return known
        return " ".join(filter(None, [f"{known}, last known." if known else "", self.why]))

    @property
    def _next_try(self) -> str:
        if self.next_try_at is None or self.is_due:
            return "Next try now"
        return f"Next try in {in_words(until(self.next_try_at))}"

    @property
    def why(self) -> str:
        """Why there is no address, in sentences: what works, what is missing, what to do, and what comes next."""
        if not self.is_missing:
            return f"{self.nic.vm.state}. {self.not_asked}"
        return " ".join(
            filter(None, [self.works, self.missing, self.todo, self.detail, self.comes or f"{self.label}."])
        )

    @property
    def comes(self) -> str:
        """What comes next, if anything does."""
        return f"{self._next_try}, {self.tries}." if self.state == IpFetch.State.WAITING else ""


def not_asked(nic: Nic) -> str:
    """Why a NIC is not in the queue."""
    match nic.vm.state:
        case VmState.ERROR:
            return nic.vm.error_text or "The VM has failed."
        case VmState.RUNNING:
            return "It joins the queue within a minute."
        case _:
            return "The address is asked for once the VM runs."


def rows_of(nics: NicQuerySet, caller: Caller) -> list[NicRow]:
    """In a number of queries that does not grow with theirs."""
    # In exact mode an endpoint that does not answer is asked all the same.
    breakers = EARLY_RETRY.get()
    return [_row(nic, caller, breakers=breakers) for nic in _with_all(nics)]


def _with_all(nics: NicQuerySet) -> Iterable[Nic]:
    # A VM's sealed columns are large, and nobody reads them here.
    listed = nics.select_related("vm__host__endpoint", "vm__zone", "network", "ip_fetch").defer(
        "vm__user_data", "vm__password", "vm__host__endpoint__password"
    )
    return listed.prefetch_related(
        Prefetch("observations", Observation.objects.current().exclude(flag=""), to_attr="flagged")
    )


def _row(nic: Nic, caller: Caller, *, breakers: bool) -> NicRow:
    fetch: IpFetch | None = getattr(nic, "ip_fetch", None)
    detail = explanations.detail_for(caller, fetch) if fetch else ""
    flagged: list[Observation] = nic.flagged
    return NicRow(
        nic,
        fetch,
        _works(nic, fetch, caller),
        detail,
        _unseen(fetch) if nic.address_state != AddressState.PINNED else "",
        _next_try_at(nic, fetch) if breakers else fetch and fetch.next_attempt_at,
        [row.address for row in flagged if row.flag == Flag.CONFLICT],
        # What the detail tells already is not told twice.
        [row.address for row in flagged if row.flag == Flag.OUTSIDE and row.address not in detail],
    )


def _works(nic: Nic, fetch: IpFetch | None, caller: Caller) -> str:
    vm = nic.vm
    if vm.state != VmState.RUNNING:
        return ""
    where = f" on {vm.host}" if caller.is_root and vm.host else ""
    runs = f"Running{where} for {in_words(since(vm.state_since))}."
    if fetch and vm.guest_seen_at and vm.guest_seen_at >= max(fetch.entered_at, vm.state_since):
        return f"{runs} Its guest has booted, and was seen {in_words(since(vm.guest_seen_at))} ago."
    return runs


def _unseen(fetch: IpFetch | None) -> str:
    """Why an address that is known was not seen when it was looked for last."""
    if fetch is None or fetch.state != IpFetch.State.FOUND or fetch.last_outcome in ("", Outcome.FOUND):
        return ""
    return Outcome(fetch.last_outcome).label


def _next_try_at(nic: Nic, fetch: IpFetch | None) -> datetime | None:
    """An endpoint that does not answer is left alone for a while."""
    retry_at = nic.vm.host.endpoint.retry_at if nic.vm.host else None
    if fetch is None or fetch.next_attempt_at is None or retry_at is None:
        return fetch and fetch.next_attempt_at
    return max(fetch.next_attempt_at, retry_at)


def _tries(count: int) -> str:
    return "try" if count == 1 else "tries"
