"""Alerts by e-mail, to a real server on this machine."""

from time import monotonic

import pytest

from extdhcp_site.accounts.models import Role
from extdhcp_site.alerts import mail, services
from extdhcp_site.alerts.models import Alert, Kind
from extdhcp_site.alerts.services import COMES_BACK_WITHIN
from extdhcp_site.configuration.models import Setting, set_value
from extdhcp_site.errors import InvalidParameter
from tests.alerts.test_alerts import HOSTS, MINUTE, problem
from tests.factories import make_caller


def test_one_mail_for_an_alert_however_long_it_lasts(post, now):
    for later in range(3):
        services.raise_(problem(advice="Look at it.", link="/hosts/"), now + later * MINUTE)
        mail.send_due(now + later * MINUTE)

    [sent] = post.mails
    assert sent["Subject"] == "[extdhcp] Host is silent: kvm-1"
    assert (sent["From"], post.recipients) == ("cloud@example.com", ["ops@example.com", "night@example.com"])
    assert "What to do: Look at it." in sent.get_content()


def test_one_more_when_it_has_stayed_away(post, now):
    services.raise_(problem(), now)
    mail.send_due(now)
    services.resolve(Kind.HOST, problem().subject.uuid, now + MINUTE)
    mail.send_due(now + 2 * MINUTE)
    assert len(post.mails) == 1
    for later in (1, 2):
        mail.send_due(now + MINUTE + COMES_BACK_WITHIN * later)
    assert [sent["Subject"] for sent in post.mails][1:] == ["[extdhcp] Over: Host is silent: kvm-1"]


def test_what_comes_and_goes_makes_no_mail_each_time(post, now):
    for later in range(0, 30, 2):
        services.settle(HOSTS, [problem()], now + later * MINUTE)
        mail.send_due(now + later * MINUTE)
        services.settle(HOSTS, [], now + (later + 1) * MINUTE)
        mail.send_due(now + (later + 1) * MINUTE)
    assert len(post.mails) == 1


def test_many_at_once_are_one_mail(post, now):
    services.settle(HOSTS, [problem(f"kvm-{number}") for number in range(70)], now)
    mail.send_due(now)

    [sent] = post.mails
    assert sent["Subject"] == "[extdhcp] Alerts: 70 new"
    assert "And 20 more." in sent.get_content()


def test_nothing_is_sent_while_nobody_wants_it(now, db):
    services.raise_(problem(), now)
    mail.send_due(now)
    assert Alert.objects.get().mailed_at is None


def test_links_lead_to_this_server(post, now):
    set_value("endpoint.url", "https://cloud.example.com/client/api", make_caller(Role.ROOT_ADMIN))
    services.raise_(problem(link="/hosts/?state=Down"), now)
    mail.send_due(now)
    assert "https://cloud.example.com/hosts/?state=Down" in post.mails[0].get_content()


def test_a_name_with_line_ends_makes_no_header(post, now):
    services.raise_(problem("kvm-1\r\nBcc: victim@example.com"), now)
    mail.send_due(now)
    [sent] = post.mails
    assert sent["Bcc"] is None
    assert sent["Subject"] == "[extdhcp] Host is silent: kvm-1 Bcc: victim@example.com"
    assert post.recipients == ["ops@example.com", "night@example.com"]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["alert.email.addresses", "alert.email.sender", "alert.smtp.host"])
def test_settings_that_become_headers_are_one_line(name):
    with pytest.raises(InvalidParameter, match="one line"):
        set_value(name, "ops@example.com\nBcc: victim@example.com", make_caller(Role.ROOT_ADMIN))


def test_a_failure_is_an_alert_and_the_mail_is_sent_later(post, now):
    post.refuses = "550 nobody here"
    services.raise_(problem(), now)
    mail.send_due(now)
    failed = Alert.objects.open().get(kind=Kind.MAIL)
    assert "550" in failed.text or "SMTPRecipientsRefused" in failed.text

    post.refuses = ""
    mail.send_due(now + MINUTE)
    assert len(post.mails) == 1
    failed.refresh_from_db()
    assert failed.state == "Resolved"


@pytest.mark.parametrize("host", ["mail..example.com", ".example.com", "a" * 64 + ".com"])
def test_a_name_that_is_no_hosts_is_an_alert_and_the_mail_is_sent_later(post, now, host):
    Setting.objects.filter(name="alert.smtp.host").update(value=host)
    services.raise_(problem(), now)
    mail.send_due(now)
    assert "its name is no host's name" in Alert.objects.open().get(kind=Kind.MAIL).text

    Setting.objects.filter(name="alert.smtp.host").update(value="127.0.0.1")
    mail.send_due(now + MINUTE)
    assert len(post.mails) == 1


def test_a_log_in_that_cannot_be_sent_is_an_alert_that_does_not_show_it(post, now):
    by = make_caller(Role.ROOT_ADMIN)
    for name, value in {"useAuth": "true", "username": "opé", "password": "s3cret-cänary"}.items():
        set_value(f"alert.smtp.{name}", value, by)
    services.raise_(problem(), now)
    mail.send_due(now)
    failed = Alert.objects.open().get(kind=Kind.MAIL)
    assert "characters that cannot be sent" in failed.text
    assert "nary" not in failed.text
    assert Alert.objects.get(kind=Kind.HOST).mailing_until is None


def test_a_server_that_says_nothing_holds_up_nobody_for_long(post, now):
    post.silent = True
    Setting.objects.filter(name="alert.smtp.timeout").update(value="1000")
    services.raise_(problem(), now)
    mail.send_due(now)
    assert Alert.objects.open().filter(kind=Kind.MAIL).exists()


@pytest.mark.parametrize("drips", [b"2", b"220-x\r\n"])
def test_a_server_that_never_comes_to_an_end_holds_up_nobody_for_long(post, now, monkeypatch, drips):
    monkeypatch.setattr(mail, "ANSWERS_TAKE", 0.5)
    post.drips = drips
    services.raise_(problem(), now)
    begun = monotonic()
    mail.send_due(now)
    assert monotonic() - begun < 10
    assert Alert.objects.open().filter(kind=Kind.MAIL).exists()
    post.drips = b""


def test_who_dies_over_a_mail_leaves_it_to_the_next(post, now):
    services.raise_(problem(), now)
    assert mail.claim(Alert.objects.open(), now)
    mail.send_due(now + MINUTE)
    assert not post.mails
    mail.send_due(now + mail.SENDING_LASTS)
    assert len(post.mails) == 1


def test_an_acknowledged_alert_is_not_mailed(post, now):
    services.raise_(problem(), now)
    services.acknowledge(Alert.objects.get(), make_caller(Role.ROOT_ADMIN), now)
    mail.send_due(now)
    assert not post.mails


def test_it_logs_in_on_this_machine(post, now):
    by = make_caller(Role.ROOT_ADMIN)
    for name, value in {"useAuth": "true", "username": "cloud", "password": "s3cret-canary"}.items():
        set_value(f"alert.smtp.{name}", value, by)
    services.raise_(problem(), now)
    mail.send_due(now)
    assert post.logins == ["AGNsb3VkAHMzY3JldC1jYW5hcnk="]


def test_no_password_goes_to_another_machine_without_tls(post, now):
    by = make_caller(Role.ROOT_ADMIN)
    for name, value in {"useAuth": "true", "host": "192.0.2.25", "password": "s3cret-canary"}.items():
        set_value(f"alert.smtp.{name}", value, by)
    services.raise_(problem(), now)
    mail.send_due(now)
    assert "needs TLS" in Alert.objects.open().get(kind=Kind.MAIL).text
