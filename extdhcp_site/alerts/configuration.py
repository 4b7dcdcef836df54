"""The settings of alerts, with CloudStack's names; `alert.wait` has the admin guide's value (10.7)."""

from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import URLValidator, validate_email

from extdhcp_site.configuration.models import define, positive, positive_or_zero, switch

CATEGORY, GROUP = "Alert", "Alerts"


def _line(text: str) -> str:
    """What goes into a mail's header, or to its server, is one line of printable characters."""
    if not text.isprintable():
        raise ValueError("must be one line without control characters")
    return text


def addresses(text: str) -> list[str]:
    """E-mail addresses with commas between them; none for an empty text."""
    found = [part.strip() for part in _line(text).split(",") if part.strip()]
    for address in found:
        _address(address)
    return found


def _address(text: str) -> str:
    if text:
        try:
            validate_email(text)
        except ValidationError:
            raise ValueError(f"{text[:100]} is not an e-mail address") from None
    return text


def _sender(text: str) -> str:
    return _address(_line(text))


def _port(text: str) -> int:
    number = positive(text)
    if number > 65535:
        raise ValueError("must be a port, from 1 to 65535")
    return number


def _milliseconds(text: str) -> float:
    number = positive(text)
    if not 1000 <= number <= 120_000:
        raise ValueError("must be a whole number from 1000 to 120000")
    return number / 1000


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise ValueError("must be a number above 0, at most 1")
    return value


def _server_url(text: str) -> str:
    """The address under which people open the console, without a slash at its end; empty if nobody has said."""
    if not text:
        return ""
    try:
        URLValidator(schemes=["http", "https"])(text)
    except ValidationError:
        raise ValueError("must be an address such as https://cloud.example.com/client/api") from None
    parts = urlsplit(text)
    return f"{parts.scheme}://{parts.netloc}"


ADDRESSES = define(
    "alert.email.addresses",
    "",
    addresses,
    "Who is sent alerts: e-mail addresses with commas between them. Empty: nobody.",
    category=CATEGORY,
    group=GROUP,
)
SENDER = define(
    "alert.email.sender",
    "",
    _sender,
    "Who alerts are from: an e-mail address. Empty: extdhcp at this server's name.",
    category=CATEGORY,
    group=GROUP,
)
HOST = define(
    "alert.smtp.host",
    "",
    _line,
    "The mail server that alerts are handed to. Empty: none are sent.",
    category=CATEGORY,
    group=GROUP,
)
PORT = define(
    "alert.smtp.port",
    "25",
    _port,
    "The mail server's port. At 465 all is TLS from the first byte.",
    category=CATEGORY,
    group=GROUP,
)
START_TLS = define(
    "alert.smtp.useStartTLS",
    "false",
    switch,
    "Begin TLS before anything is said. The mail server's certificate must be one that this server trusts.",
    category=CATEGORY,
    group=GROUP,
)
USE_AUTH = define(
    "alert.smtp.useAuth",
    "false",
    switch,
    "Log in to the mail server. Never without TLS, unless it is on this machine.",
    category=CATEGORY,
    group=GROUP,
)
USERNAME = define(
    "alert.smtp.username",
    "",
    _line,
    "With alert.smtp.useAuth: the name to log in with.",
    category=CATEGORY,
    group=GROUP,
)
PASSWORD = define(
    "alert.smtp.password",
    "",
    _line,
    "With alert.smtp.useAuth: the password to log in with. It is stored sealed, and never shown.",
    category=CATEGORY,
    group=GROUP,
    secret=True,
)
TIMEOUT = define(
    "alert.smtp.timeout",
    "30000",
    _milliseconds,
    "How long the mail server may take for each step.",
    category=CATEGORY,
    group=GROUP,
    unit="milliseconds",
)
SERVER_URL = define(
    "endpoint.url",
    "",
    _server_url,
    "The address under which clients reach this server, for the links in mails. Empty: mails have paths only.",
    category=CATEGORY,
    group=GROUP,
)
WAIT = define(
    "alert.wait",
    "180",
    positive_or_zero,
    "How long a host may be silent before there is an alert.",
    category=CATEGORY,
    group=GROUP,
    unit="seconds",
)
PURGE_DELAY = define(
    "alert.purge.delay",
    "7776000",
    positive_or_zero,
    "How long alerts are kept after their end; 0: for ever.",
    category=CATEGORY,
    group=GROUP,
    unit="seconds",
)
