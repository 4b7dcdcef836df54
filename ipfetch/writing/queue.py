"""A NIC's row in the queue after a try."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, QuerySet

from extdhcp_site.bulk import Keys
from extdhcp_site.deadlocks import repeated
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType, Level
from ipfetch.addresses import IN_THE_GUEST
from ipfetch.models import IpFetch, Outcome
from ipfetch.schedule import EAGER_DELAY, Pace
from ipfetch.writing.bulk import update_each
from ipfetch.writing.targets import Finding, Held, Target, event_of, grouped, rows_of, still_held, targets

State = IpFetch.State
MOST_DIFFERENT_ANSWERS = 8
# After a start a server's lease may be that of the boot before, until the guest has asked it again.
YOUNG_FOR = timedelta(minutes=5)
YOUNG_DELAY = timedelta(seconds=20)


def write_found(settled: Sequence[Held], newly: Collection[Held], pace: Pace, now: datetime) -> None:
    groups = grouped(
        settled,
        lambda one: (one in newly, str(one.choice.source or ""), one.target.endpoint_id, _look_again(one, pace, now)),
    )
    for (is_new, source, endpoint_id, (soon, eager_until)), ones in groups.items():
        changes = ({"found_at": now} if is_new else {}) | ({"eager_until": eager_until} if eager_until else {})
        rows_of(ones).update(
            state=State.FOUND,
            next_attempt_at=soon or pace.refresh_at(endpoint_id or 0, now),
            claimed_until=None,
            last_outcome=Outcome.FOUND,
            last_source=source,
            last_detail="",
            **changes,
        )


def _look_again(one: Held, pace: Pace, now: datetime) -> tuple[datetime | None, datetime | None]:
    """When a NIC that has its address is read again, if not with the others of its endpoint; and the end of its being
    asked eagerly, if that changes."""
    if pace.exact:
        return None, None
    if one.doubted and one.eager:
        return now + EAGER_DELAY, None
    # Cut short, not forgotten: a guest whose agent comes and goes is not eagerly asked each time.
    eager_until = now if one.eager else None
    in_guest = one.choice.source in IN_THE_GUEST
    young = not in_guest and now - one.entered_at < YOUNG_FOR
    return (now + YOUNG_DELAY if young else None), eager_until


def write_none(unsettled: Sequence[Held], pace: Pace, now: datetime) -> None:
    """Why there is no address; the last try gives the NIC up. What was known before is not touched."""
    if not unsettled:
        return
    # Found by a report since it was asked for: that it was asked in vain tells nobody anything.
    overtaken = {one for one in unsettled if one.was_found_since}
    rows_of(overtaken).update(claimed_until=None)
    unsettled = [one for one in unsettled if one not in overtaken]
    groups = grouped(unsettled, lambda one: (one.finding.outcome, one.finding.detail[:255]))
    if len(groups) <= MOST_DIFFERENT_ANSWERS:
        for (outcome, detail), ones in groups.items():
            rows_of(ones).update(claimed_until=None, last_outcome=outcome, last_detail=detail)
    else:
        answers = {one.target.row_id: (None, *answer) for answer, ones in groups.items() for one in ones}
        update_each(IpFetch, answers, ["claimed_until", "last_outcome", "last_detail"])
    spent = [one for one in unsettled if one.state == State.WAITING and one.retries_left == 0 and not one.eager]
    if spent:
        give_up([(one.target, one.finding.outcome) for one in spent], pace, now)


def give_up(spent: Sequence[tuple[Target, str]], pace: Pace, now: datetime) -> None:
    for endpoint_id, ones in grouped(spent, lambda pair: pair[0].endpoint_id).items():
        IpFetch.objects.filter(pk__among=Keys(target.row_id for target, _ in ones)).update(
            state=State.EXHAUSTED,
            next_attempt_at=pace.refresh_at(endpoint_id or 0, now),
            claimed_until=None,
        )
    events.record_all(
        [
            event_of(
                target,
                EventType.IP_FETCH,
                f"ip addr fetch failed, no tries are left. {Outcome(outcome).advice if outcome else ''}".strip(),
                level=Level.ERROR,
            )
            for target, outcome in spent
        ]
    )


def give_back(batch: Sequence[Target], now: datetime, **changes: object) -> None:
    """NICs that were not reached get back what their claim took, and stay in line for the next one."""

    def write() -> None:
        with transaction.atomic():
            held = still_held([Finding(target) for target in batch], now)
            for claim, ones in grouped(held, lambda one: one.target.claim).items():
                took: dict[str, object] = {}
                if claim in (IpFetch.Claim.EARLY, IpFetch.Claim.COUNTED):
                    took["tries"] = F("tries") - 1
                if claim == IpFetch.Claim.COUNTED:
                    took["retries_left"] = F("retries_left") + 1
                rows_of(ones).update(claimed_until=None, **took, **changes)

    repeated(write)


def exhaust(rows: QuerySet[IpFetch], now: datetime) -> None:
    """Give up those of `rows` that have no try left, with one ERROR event each."""
    with transaction.atomic():
        locked = IpFetch.objects.select_for_update().waiting().filter(pk__in=list(rows.values_list("pk", flat=True)))
        spent = locked.filter(retries_left=0)
        outcomes = dict(spent.values_list("pk", "last_outcome"))
        if outcomes:
            gone = targets(IpFetch.objects.filter(pk__in=outcomes))
            give_up([(target, outcomes[target.row_id]) for target in gone], Pace.now(), now)
