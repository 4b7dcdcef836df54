"""`/api/v1/nics/{id}/address`: waiting for a NIC's address instead of polling for it."""

from collections.abc import Sequence

from django.db.models import Q
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from extdhcp_site.api import live, resources
from extdhcp_site.api.registry import EVERYBODY
from networks.api.vm_answers import NicAnswer
from networks.models import AddressState, Nic
from networks.models.vms import NicQuerySet

LONGEST_WAIT = 120

Waiter = live.Waiter[int, Nic]


def _nics() -> NicQuerySet:
    return Nic.objects.for_listing().select_related("vm")


# Where there is no IPv4 subnet an IPv6 address will do; elsewhere a router's advertisement comes before DHCP's answer.
_HAS_ADDRESS = Q(ip4_address__isnull=False) | Q(ip6_address__isnull=False, network__cidr="")
# What a stopped VM had is no news.
_IS_NOW = Q(address_state__in=[AddressState.CONFIRMED, AddressState.UNCONFIRMED, AddressState.PINNED])


def look(waiters: Sequence[Waiter]) -> dict[Waiter, list[Nic]]:
    """The NICs that have an address by now, each for those who wait for it; one query."""
    learned = _nics().filter(_HAS_ADDRESS, _IS_NOW).in_bulk({waiter.about for waiter in waiters})
    return {waiter: [learned[waiter.about]] for waiter in waiters if waiter.about in learned}


class NicAddress(resources.CallerView):
    """A NIC with its address, as soon as that is known: no need to poll.

    Answers 200 with the NIC as soon as it has an address, at once if it has one, and 204, without a body, if it has
    none after `wait` seconds: ask again. `/ip-fetches/{id}` says what keeps it. The address is the IPv4 one; on a
    network without an IPv4 subnet, the IPv6 one. What a stopped VM had last does not count.
    """

    roles = EVERYBODY

    def known_parameters(self) -> set[str]:
        return {"wait"}

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "wait", OpenApiTypes.INT, description=f"Seconds to wait for it, 0 to {LONGEST_WAIT}; 0 if left out."
            )
        ],
        responses={
            200: NicAnswer,
            204: OpenApiResponse(description="It has no address yet."),
            503: OpenApiResponse(description="Too many clients wait. `Retry-After` says when to ask again."),
        },
    )
    def get(self, request: Request, id: str) -> Response:
        caller = self.caller
        assert caller
        seconds = _seconds(request.query_params.get("wait", "0"))
        nic: Nic = get_object_or_404(Nic.objects.visible_to(caller).only("pk"), uuid=id)
        found = _nics().filter(_HAS_ADDRESS, _IS_NOW, pk=nic.pk).first()
        if found is None and seconds:
            waiter: Waiter = live.room.enter(request, caller, look, nic.pk)
            try:
                found = next(iter(waiter.news(seconds)), None)
            finally:
                waiter.leave()
        if found is None:
            return Response(status=status.HTTP_204_NO_CONTENT)
        return Response(NicAnswer(found, context={"caller": caller}).data)


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) <= LONGEST_WAIT):
        raise ValidationError({"wait": [f"must be a whole number of seconds from 0 to {LONGEST_WAIT}."]})
    return int(text)


resources.path("nics/{id}/address", NicAddress)
