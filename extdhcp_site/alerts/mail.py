"""Alerts by e-mail: one mail for all that is new, one more for each that ends; tried again until it is taken."""

import io
import re
import smtplib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Self
from uuid import NAMESPACE_DNS, uuid5

import structlog
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend
from django.db.models import Q

from extdhcp_site.alerts import configuration, services
from extdhcp_site.alerts.models import Alert, AlertQuerySet, Kind
from extdhcp_site.alerts.services import COMES_BACK_WITHIN, Problem
from extdhcp_site.configuration.models import values_of
from extdhcp_site.events.models import Subject

# What one mail tells of. The others follow a minute later.
MOST_IN_A_MAIL = 500
MOST_SPELT_OUT = 50
# Longer than a mail takes: who dies over it leaves it to the next.
SENDING_LASTS = timedelta(minutes=10)
# What a server may take to answer in all, in seconds, however short each wait of it is.
ANSWERS_TAKE = 300.0
IMPLICIT_TLS_PORT = 465
NOT_SENT = Subject("MailServer", uuid5(NAMESPACE_DNS, "mail.extdhcp"), "mail server")

_NOT_IN_A_HEADER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

log = structlog.get_logger(__name__)


class NotSafe(Exception):
    """As it is set up, a password would go in clear."""


class _Answers(io.RawIOBase):
    """What a server sends until a moment of the monotonic clock; then TimeoutError, however little is missing."""

    def __init__(self, connection: socket.socket, timeout: float, until: float) -> None:
        self._connection, self._timeout, self._until = connection, timeout, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(min(left, self._timeout))
        return self._connection.recv_into(buffer)


class _Client(smtplib.SMTP):
    """One timeout more, for the whole talk: smtplib's begins anew with each byte."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._until = monotonic() + ANSWERS_TAKE
        super().__init__(*args, **kwargs)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock:
            self.file = io.BufferedReader(_Answers(self.sock, self.timeout, self._until))
        return super().getreply()


class _TlsClient(_Client, smtplib.SMTP_SSL):
    pass


class _Backend(EmailBackend):
    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        return _TlsClient if self.use_ssl else _Client


@dataclass(frozen=True)
class Post:
    """How mails are sent, by the settings of this moment."""

    addresses: list[str]
    sender: str
    host: str
    port: int
    starts_tls: bool
    logs_in: bool
    username: str
    timeout: float
    url: str

    @classmethod
    def now(cls) -> Self:
        return cls(
            *values_of(
                configuration.ADDRESSES,
                configuration.SENDER,
                configuration.HOST,
                configuration.PORT,
                configuration.START_TLS,
                configuration.USE_AUTH,
                configuration.USERNAME,
                configuration.TIMEOUT,
                configuration.SERVER_URL,
            )
        )

    @property
    def is_set_up(self) -> bool:
        return bool(self.addresses and self.host)

    def send(self, subject: str, body: str) -> None:
        """Raises OSError, SMTPException, NotSafe, and UnicodeError for a host or log-in that cannot be sent."""
        sender = self.sender or f"extdhcp@{socket.getfqdn()}"
        EmailMessage(in_a_header(subject), body, sender, self.addresses, connection=self._connection()).send()

    def _connection(self) -> EmailBackend:
        tls = self.port == IMPLICIT_TLS_PORT
        if self.logs_in and not (tls or self.starts_tls or self.host in ("localhost", "127.0.0.1", "::1")):
            raise NotSafe("alert.smtp.useAuth needs TLS: set alert.smtp.useStartTLS, or port 465.")
        return _Backend(
            host=self.host,
            port=self.port,
            username=self.username if self.logs_in else "",
            password=configuration.PASSWORD.get() if self.logs_in else "",
            use_ssl=tls,
            use_tls=self.starts_tls and not tls,
            timeout=self.timeout,
        )


def send_due(now: datetime) -> None:
    """Send what is due, if mails are wanted. A failure is an alert on the page, and the same mails are due again.

    Not in a transaction: a mail server takes its time.
    """
    post = Post.now()
    if not post.is_set_up:
        services.resolve(Kind.MAIL, NOT_SENT.uuid, now)
        return
    begun, ended = claim(_begun(), now), claim(_ended(now), now)
    if not begun and not ended:
        return
    try:
        post.send(subject_of(begun, ended), body_of(begun, ended, post.url))
    except Exception as error:  # whatever it is: what is not sent must be told, and be due again
        _release([*begun, *ended])
        services.raise_(_not_sent(post, error), now)
        log.warning("Alerts could not be mailed.", host=post.host, error=_in_words(error))
        return
    Alert.objects.filter(pk__in=[alert.pk for alert in begun]).update(mailed_at=now, mailing_until=None)
    Alert.objects.filter(pk__in=[alert.pk for alert in ended]).update(end_mailed_at=now, mailing_until=None)
    services.resolve(Kind.MAIL, NOT_SENT.uuid, now)


def _begun() -> AlertQuerySet:
    return Alert.objects.open().filter(mailed_at=None, archived=False).exclude(kind=Kind.MAIL)


def _ended(now: datetime) -> AlertQuerySet:
    """Those that have not come back for a while, out of those that were mailed."""
    over = Alert.objects.filter(resolved_at__lte=now - COMES_BACK_WITHIN)
    return over.filter(mailed_at__isnull=False, end_mailed_at=None)


def claim(due: AlertQuerySet, now: datetime) -> list[Alert]:
    """Those of them that nobody else is about to mail, each taken by one statement."""
    free = Q(mailing_until=None) | Q(mailing_until__lte=now)
    until = now + SENDING_LASTS
    chosen = due.filter(free).order_by("first_at", "pk")[:MOST_IN_A_MAIL]
    return [alert for alert in chosen if due.filter(free, pk=alert.pk).update(mailing_until=until)]


def _release(alerts: Sequence[Alert]) -> None:
    Alert.objects.filter(pk__in=[alert.pk for alert in alerts]).update(mailing_until=None)


def _not_sent(post: Post, error: Exception) -> Problem:
    return Problem(
        Kind.MAIL,
        NOT_SENT,
        f"Alerts could not be mailed by {post.host}, port {post.port}: {_in_words(error)}",
        "Compare the settings alert.smtp.* with what the mail server wants. It is tried again every minute.",
        "/settings/?q=alert.",
    )


def _in_words(error: Exception) -> str:
    """A server's own words may hold anything, so only their kind is told, and its number."""
    match error:
        case NotSafe():
            return str(error)
        case ssl.SSLCertVerificationError():
            return "its certificate is not one that this server trusts."
        case TimeoutError():
            return "it did not answer in time."
        case UnicodeError():
            return "its name is no host's name, or what is to log in has characters that cannot be sent."
    code = getattr(error, "smtp_code", None)
    said = f" It said {code}." if code else ""
    reason = getattr(error, "strerror", None) or type(error).__name__
    return f"{reason}.{said}"


# Words ------------------------------------------------------------------------------------------------


def in_a_header(text: str) -> str:
    """One line, whatever names are in it: a line end would begin a header of its own."""
    return _NOT_IN_A_HEADER.sub(" ", text)[:200]


def subject_of(begun: Sequence[Alert], ended: Sequence[Alert]) -> str:
    match [*begun], [*ended]:
        case [alert], []:
            return f"[extdhcp] {alert}"
        case [], [alert]:
            return f"[extdhcp] Over: {alert}"
    counted = [f"{len(begun)} new" if begun else "", f"{len(ended)} over" if ended else ""]
    return f"[extdhcp] Alerts: {', '.join(filter(None, counted))}"


def body_of(begun: Sequence[Alert], ended: Sequence[Alert], url: str) -> str:
    parts = [_spelt_out(alert, url) for alert in begun[:MOST_SPELT_OUT]]
    if over := ended[:MOST_SPELT_OUT]:
        parts.append("\n".join(["Over:", *(f"- {alert}, {_lasted(alert)}" for alert in over)]))
    if left := len(begun) + len(ended) - len(begun[:MOST_SPELT_OUT]) - len(over):
        parts.append(f"And {left} more.")
    parts.append(f"All alerts: {url}/alerts/")
    return "\n\n".join(parts) + "\n"


def _spelt_out(alert: Alert, url: str) -> str:
    lines = [
        str(alert),
        alert.text,
        alert.advice and f"What to do: {alert.advice}",
        f"Since: {alert.first_at:%Y-%m-%d %H:%M:%S} UTC",
        alert.link and f"See: {url}{alert.link}",
    ]
    return "\n".join(filter(None, lines))


def _lasted(alert: Alert) -> str:
    until = alert.resolved_at
    return f"from {alert.first_at:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC" if until else ""
