"""What every page and every answer tells a browser, and that none brings a script of its own."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from tests.console.worlds import client_of, make_root
from tests.factories import make_running_vm

pytestmark = pytest.mark.django_db

# Never ends; what is answered to who may not listen is the same.
ENDLESS = "api/v1/events/stream"


def urls(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[str]:
    """One of each pattern, with something for the names in it."""
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from urls(pattern.url_patterns, route)
        else:
            filled = re.sub(r"<(?:\w+:)?\w+>", "1", route)
            yield re.sub(r"\(\?P<\w+>[^)]*\)|[\^$]|\\Z", "", filled)


URLS = sorted({url for url in urls(get_resolver().url_patterns) if not url.rstrip("/").endswith(ENDLESS)})


@pytest.mark.parametrize("who", ["nobody", "root"])
def test_every_url_guards_its_answer(who):
    """No framing, no guessing of types, no script but our own files, nothing kept; on every URL that there is."""
    assert len(URLS) > 200
    make_running_vm()
    client = client_of(make_root()) if who == "root" else Client()
    for url in URLS:
        answer = client.get(f"/{url}")
        policy = answer["Content-Security-Policy"]
        assert answer.status_code < 500 or url == "readyz", url
        assert answer["X-Frame-Options"] == "DENY", url
        assert answer["X-Content-Type-Options"] == "nosniff", url
        assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy.split("; ")), url
        assert "unsafe" not in policy, url
        assert "no-store" in answer["Cache-Control"], url


class Scripts(HTMLParser):
    """What of a page would run although it is no file of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        is_data = given.get("type") in ("application/json", "text/template")
        if tag == "script" and not given.get("src") and not is_data:
            self.found.append("<script>")
        self.found += [name for name in given if name.startswith("on") or name == "style"]
        self.found += [value for value in given.values() if (value or "").strip().lower().startswith("javascript:")]


def test_no_page_brings_an_inline_script():
    make_running_vm()
    client, pages = client_of(make_root()), 0
    for url in URLS:
        answer = client.get(f"/{url}")
        if answer["Content-Type"].startswith("text/html"):
            pages += 1
            scripts = Scripts()
            scripts.feed(answer.text)
            assert not scripts.found, url
    assert pages > 50


@pytest.mark.parametrize("path", ["/", "/login/", "/client/api", "/api/v1/vms", "/admin/"])
def test_behind_tls_browsers_come_by_tls_only(settings, path):
    settings.SECURE_HSTS_SECONDS, settings.SECURE_SSL_REDIRECT = 31_536_000, True
    assert Client().get(path, secure=True)["Strict-Transport-Security"] == "max-age=31536000"
    plain = Client().get(path)
    assert (plain.status_code, plain["Location"]) == (301, f"https://testserver{path}")


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data; boundary=x", "application/json"])
@pytest.mark.parametrize("path", ["/client/api", "/api/v1/ssh-key-pairs/actions/create"])
def test_a_form_of_another_page_changes_nothing(content_type, path):
    """CVE-2024-45693 (CloudStack): a foreign page's request was carried out by the victim's cookies; what a page can
    send without asking is a form, or a text that looks like JSON.
    """
    from networks.models import SshKeyPair

    browser = Client(enforce_csrf_checks=True)
    browser.force_login(make_root())
    body = '{"command": "createSSHKeyPair", "name": "theirs"}'
    answer = browser.post(path, body, content_type=content_type, headers={"origin": "https://evil.example"})
    assert answer.status_code in (401, 403, 415, 431)
    assert not SshKeyPair.objects.exists()
