"""`POST /api/v1/leases/`: a DHCP server's script reports a lease the moment it is given, renewed or gone."""

import json
import re
import time
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_field, inline_serializer
from rest_framework import serializers, status
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import APIException, AuthenticationFailed, ParseError, ValidationError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from extdhcp_site.accounts.models import hash_token
from ipfetch import recording
from ipfetch.addresses import NicFacts, can_be_leased, reported_for
from ipfetch.leases.lease import CLOCKS_APART
from ipfetch.models import LeaseToken
from networks.hypervisors.base import GuestAddress, Source
from networks.models import Network, Nic

MOST_BYTES = 4096
# By one token. Counted in Django's cache: by each process for itself, unless a shared cache is set up.
MOST_A_SECOND = 200
# A lease's time is a number of seconds in 32 bits (RFC 2132, 9.2).
LONGEST_LEASE = timedelta(seconds=2**32)

_BEARER = re.compile(rb"bearer +([A-Za-z0-9_-]{64})", re.IGNORECASE)
# dhcpd's binary-to-ascii leaves out leading zeros; Windows writes hyphens.
_MAC = re.compile(r"[0-9A-Fa-f]{1,2}(?:([:-])[0-9A-Fa-f]{1,2})(?:\1[0-9A-Fa-f]{1,2}){4}")


class Impossible(APIException):
    """The report can be read, and cannot be true."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY


class TooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = f"A report has at most {MOST_BYTES} bytes."


# Who may report -------------------------------------------------------------------------------------


class LeaseTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer <token>`, as `create_lease_token` shows it once. Whoever has none is refused here."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, LeaseToken]:
        found = _BEARER.fullmatch(get_authorization_header(request))
        tokens = LeaseToken.objects.usable().select_related("network")
        token = tokens.filter(token_hash=hash_token(found[1].decode())).first() if found else None
        if token is None:
            raise AuthenticationFailed("Lease reports need a lease token that is valid.")
        token.note_use(timezone.now())
        return AnonymousUser(), token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="extdhcp leases"'


class LeaseTokenInSchema(OpenApiAuthenticationExtension):
    target_class = LeaseTokenAuthentication
    name = "leaseToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "Of one network; made by create_lease_token."}


class ReportRate(BaseThrottle):
    def allow_request(self, request: Request, view: APIView) -> bool:
        key = f"lease-reports:{request.auth.pk}:{int(time.time())}"
        cache.add(key, 0, timeout=10)
        try:
            return cache.incr(key) <= MOST_A_SECOND
        except ValueError:
            # The cache is full and has dropped it, or keeps nothing at all.
            return True

    def wait(self) -> float:
        return 1.0


# What is reported -----------------------------------------------------------------------------------


class ReportParser(BaseParser):
    """A small JSON object in UTF-8, each key once."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> dict[str, object]:
        body = stream.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            raise TooLarge
        return parse_object(body)


def parse_object(body: bytes) -> dict[str, object]:
    """Raises ParseError, which quotes nothing of the body."""
    try:
        parsed = json.loads(body.decode(), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ParseError("The body is not JSON in UTF-8, or has a key twice.") from error
    if not isinstance(parsed, dict):
        raise ParseError("The body is not a JSON object.")
    return parsed


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("A key stands there twice.")
    return found


@extend_schema_field({"type": "string", "example": "06:4d:83:65:4d:c9", "description": "The guest's MAC address"})
class MacField(serializers.Field):
    """Lower case, colon-separated, two digits each."""

    default_error_messages = {"invalid": "Not a MAC address: six octets in hexadecimal, with colons or hyphens."}

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str) or not _MAC.fullmatch(data):
            self.fail("invalid")
        return ":".join(octet.zfill(2) for octet in re.split("[:-]", data.lower()))


@extend_schema_field({"type": "string", "example": "10.100.0.120", "description": "IPv4 or IPv6"})
class AddressField(serializers.Field):
    default_error_messages = {"invalid": "Not an IP address."}

    def to_internal_value(self, data: object) -> IPv4Address | IPv6Address:
        # A scope (fe80::1%eth0) has a meaning on one machine only.
        if not isinstance(data, str) or "%" in data:
            self.fail("invalid")
        try:
            return ip_address(data)
        except ValueError:
            self.fail("invalid")


@extend_schema_field(
    {
        "oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "format": "date-time"}, {"type": "null"}],
        "description": "Seconds since 1970, 0 for never; or ISO 8601 with a time zone",
        "example": 1795282753,
    }
)
class ExpiryField(serializers.Field):
    """None for a lease that never ends. What no datetime can hold is none either: it is too far away."""

    default_error_messages = {
        "invalid": "Neither seconds since 1970 nor ISO 8601 with a time zone.",
    }

    def to_internal_value(self, data: object) -> datetime | None:
        match data:
            case bool():
                self.fail("invalid")
            case int():
                return self._of_seconds(data)
            case str() if 19 < len(data) < 40:
                return self._of_text(data)
            case _:
                self.fail("invalid")

    def _of_seconds(self, seconds: int) -> datetime | None:
        if seconds == 0:
            return None
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            raise Impossible("expires: There is no such time.") from None

    def _of_text(self, text: str) -> datetime:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail("invalid")
        if moment.tzinfo is None:
            self.fail("invalid")
        return moment


class ReportSerializer(serializers.Serializer):
    """A lease as the DHCP server's script has it: dnsmasq's own words for what happened."""

    event = serializers.ChoiceField(
        ["add", "old", "del"],
        error_messages={"invalid_choice": "add, old or del."},
        help_text="add or old: the lease holds; del: it is gone.",
    )
    mac = MacField()
    ip = AddressField()
    hostname = serializers.CharField(
        required=False, allow_null=True, allow_blank=True, max_length=255, help_text="What the guest calls itself."
    )
    expires = ExpiryField(required=False, allow_null=True)

    def to_internal_value(self, data: dict[str, object]) -> dict[str, Any]:
        if set(data) - set(self.fields):
            raise ValidationError({"non_field_errors": [f"A report has {', '.join(self.fields)}, and nothing else."]})
        if not isinstance(data.get("hostname", ""), str | None):
            raise ValidationError({"hostname": ["Not a string."]})
        return super().to_internal_value(data)


def check_lease(lease: GuestAddress, network: Network, now: datetime) -> None:
    """Raises Impossible for a lease that no DHCP server of the network can have given."""
    gateway = IPv4Address(network.gateway) if network.gateway else None
    facts = NicFacts(lease.mac, network.ip4_network, gateway)
    if not reported_for(facts, [lease]):
        raise Impossible("ip: An address of this kind is never leased.")
    if not can_be_leased(facts, lease.ip):
        raise Impossible("ip: Outside of the network's CIDR, or the gateway's, or the network's own.")
    if lease.expires is not None and not now - CLOCKS_APART < lease.expires < now + LONGEST_LEASE:
        raise Impossible("expires: The lease ended long ago, or ends later than any lease.")


# The page -------------------------------------------------------------------------------------------


class LeaseReports(APIView):
    authentication_classes = [LeaseTokenAuthentication]
    # The token is the permission.
    permission_classes = []
    throttle_classes = [ReportRate]
    parser_classes = [ReportParser]

    @extend_schema(
        operation_id="report_lease",
        tags=["leases"],
        request=ReportSerializer,
        responses={
            202: OpenApiResponse(
                inline_serializer("AcceptedReport", {"accepted": serializers.BooleanField(help_text="True.")}),
                description="Accepted, whether or not a NIC of the network has this MAC address.",
            ),
            400: OpenApiResponse(description="Not a report."),
            401: OpenApiResponse(description="No lease token, or not a valid one."),
            413: OpenApiResponse(description=f"More than {MOST_BYTES} bytes."),
            415: OpenApiResponse(description="Not application/json."),
            422: OpenApiResponse(description="A lease that cannot be: outside the CIDR, the gateway's, long ended."),
            429: OpenApiResponse(description=f"More than {MOST_A_SECOND} reports in a second; see Retry-After."),
        },
        examples=[
            OpenApiExample(
                "A lease was given",
                request_only=True,
                value={
                    "event": "add",
                    "mac": "06:4d:83:65:4d:c9",
                    "ip": "10.100.0.120",
                    "hostname": "web-1",
                    "expires": 1795282753,
                },
            )
        ],
    )
    def post(self, request: Request) -> Response:
        """Report a lease of the token's network: `add` or `old` when it holds, `del` when it is gone.

        Safe to repeat. The answer says nothing about which NICs there are.
        """
        now = timezone.now()
        report = ReportSerializer(data=request.data)
        report.is_valid(raise_exception=True)
        take(request.auth.network, report.validated_data, now)
        return Response({"accepted": True}, status.HTTP_202_ACCEPTED)


def take(network: Network, report: dict[str, Any], now: datetime) -> None:
    """Write a report down for the network's NIC that has this MAC address, if there is one. Raises Impossible."""
    is_gone = report["event"] == "del"
    expires = None if is_gone else report.get("expires")
    lease = GuestAddress(report["mac"], report["ip"], Source.WEBHOOK, expires=expires)
    check_lease(lease, network, now)
    nics = list(Nic.objects.filter(network=network, mac_address=lease.mac).values_list("pk", flat=True))
    if not nics:
        # Without a transaction: a server that serves others too may report very many.
        return
    if is_gone:
        recording.withdraw(Source.WEBHOOK, nics, str(lease.ip), now)
    else:
        recording.report(Source.WEBHOOK, {nic: [lease] for nic in nics}, now)
