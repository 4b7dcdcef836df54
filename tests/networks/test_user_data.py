"""User data: strict base64 within its limits, by either method, and the user's bytes as they are."""

import base64
import gzip
import tracemalloc

import pytest
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from extdhcp_site.accounts.models import Role
from extdhcp_site.api import registry
from extdhcp_site.api.parameters import Text
from extdhcp_site.configuration.models import Setting
from extdhcp_site.console.management.commands.serve import _commands
from extdhcp_site.errors import InvalidParameter
from networks.configuration import USER_DATA_MAX_LENGTH
from networks.models import VirtualMachine
from networks.services.guest_data import check_user_data
from tests.api.client import ENDPOINT, Reply, Signer, reply_of
from tests.factories import (
    make_account,
    make_caller,
    make_cluster,
    make_host,
    make_network,
    make_service_offering,
    make_template,
)
from tests.fakes import FakeHypervisor, hypervisors
from tests.life import deploy

pytestmark = pytest.mark.django_db

MIB = 2**20


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture
def user() -> Signer:
    return Signer.of(make_account())


@pytest.fixture
def wanted() -> dict[str, object]:
    host = make_host(make_cluster())
    zone = host.cluster.pod.zone
    return {
        "zoneid": zone.uuid,
        "templateid": make_template().uuid,
        "serviceofferingid": make_service_offering().uuid,
        "networkids": make_network(zone).uuid,
    }


def refused(reply: Reply, *words: str) -> None:
    assert (reply.status, reply.body.get("cserrorcode")) == (431, 4350), reply
    for word in words:
        assert word in reply.text
    assert not VirtualMachine.objects.exists()


# Base64 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelt",
    [
        pytest.param("QUJD REVG", id="a space"),
        pytest.param(" QUJD", id="a space before"),
        pytest.param("QUJD ", id="a space behind"),
        pytest.param("QUJD\nREVG", id="a newline"),
        pytest.param("QUJD\n", id="a newline at the end"),
        pytest.param("QUJD\r\nREVG\r\n", id="lines as of MIME"),
        pytest.param("QUJD\u2028", id="another line end"),
        pytest.param("QU!JD", id="junk inside"),
        pytest.param("QUJD;", id="junk behind"),
        pytest.param("#cloud-config", id="not encoded"),
        pytest.param("QUI", id="no padding"),
        pytest.param("QQ=", id="half the padding"),
        pytest.param("Q===", id="more padding than there can be"),
        pytest.param("=", id="padding alone"),
        pytest.param("QUI=QUJD", id="padding inside"),
        pytest.param("QUJD=", id="padding where none belongs"),
        pytest.param("QUJD==", id="two of it where none belongs"),
        pytest.param("QR==", id="bits that stand for nothing"),
        pytest.param("-_-_", id="the alphabet of URLs"),
        pytest.param("\uff31\uff35\uff2a\uff24", id="letters that look alike"),
        pytest.param("QUJ\u0301D", id="an accent"),
    ],
)
def test_what_is_not_exactly_base64_is_refused(spelt):
    """`b64decode` by itself drops what it does not know, and a guest would boot with half its script."""
    with pytest.raises(InvalidParameter, match="must be base64"):
        check_user_data(spelt)


@pytest.mark.parametrize(
    "content", [b"", b"A", b"AB", b"ABC", b"\0", b"a\0b\0", bytes(range(256)), b"\xff\xfe\xfb" * 9]
)
def test_every_byte_may_be_user_data(content):
    check_user_data(encoded(content))


@pytest.mark.parametrize(
    ("spelt", "says"),
    [("QUJD\0", "control characters"), ("QUJD\nREVG", "line breaks"), ("QU!D", "must be base64"), ("-_-_", "base64")],
)
def test_a_deploy_with_bad_user_data_makes_nothing(user, wanted, spelt, says):
    for method in ("get", "post"):
        refused(user.call("deployVirtualMachine", method=method, userdata=spelt, **wanted), says)


def test_empty_user_data_is_none(user, wanted):
    assert user.call("deployVirtualMachine", userdata="", **wanted).status == 200
    assert VirtualMachine.objects.get().user_data is None


# How long it may be ----------------------------------------------------------------------------------


@pytest.mark.parametrize("longest", [4, 32768, MIB])
def test_one_over_the_limit_is_refused_with_both_sizes(longest):
    Setting.objects.create(name="vm.userdata.max.length", value=str(longest))
    check_user_data("A" * longest)
    for length in (longest + 1, longest + 4):
        with pytest.raises(InvalidParameter) as caught:
            check_user_data("A" * length)
        assert f"has {length} base64 characters; vm.userdata.max.length allows {longest}." in caught.value.text


@pytest.mark.parametrize("value", ["0", "-1", "1048577", "2147483647", "x"])
def test_the_setting_stays_within_cloudstacks_hard_maximum(value):
    root = Signer.of(make_account(Role.ROOT_ADMIN))
    reply = root.call("updateConfiguration", name="vm.userdata.max.length", value=value)
    assert reply.status == 431
    assert root.call("updateConfiguration", name="vm.userdata.max.length", value=MIB).status == 200
    assert USER_DATA_MAX_LENGTH.get() == MIB


def test_by_get_4096_characters_are_allowed_and_one_more_names_the_way_out(user, wanted):
    refused(
        user.call("deployVirtualMachine", userdata="A" * 4100, **wanted), "has 4100 characters", "may have 4096", "POST"
    )
    assert user.call("deployVirtualMachine", userdata="A" * 4096, **wanted).status == 200


def test_by_post_as_much_is_allowed_as_the_setting_says(user, wanted):
    Setting.objects.create(name="vm.userdata.max.length", value=str(MIB))
    over = user.call("deployVirtualMachine", method="post", userdata="A" * (MIB + 4), **wanted)
    refused(over, "1048576")
    assert user.call("deployVirtualMachine", method="post", userdata="A" * MIB, **wanted).status == 200
    assert len(VirtualMachine.objects.get().user_data) == MIB


def test_a_post_with_user_data_in_its_url_has_the_urls_limit(user, wanted):
    """CloudStack goes by the method; what a proxy cuts off goes by the place."""
    every = {"command": "deployVirtualMachine", "response": "json", "userdata": "A" * 4100, **wanted}
    response = user.raw(*((name, str(value)) for name, value in every.items()))
    query = response.wsgi_request.META["QUERY_STRING"]
    answer = response.client.post(f"{ENDPOINT}?{query}", "", content_type="application/x-www-form-urlencoded")
    refused(reply_of(answer), "may have 4096")


def test_every_command_that_takes_user_data_has_the_limit():
    fields = {found.name: found.params.declared().get("userdata") for found in registry.commands()}
    limits = {name: field.max_in_url for name, field in fields.items() if isinstance(field, Text)}
    assert limits == dict.fromkeys(
        ("deployVirtualMachine", "resetUserDataForVirtualMachine", "updateVirtualMachine"), 4096
    )


def test_gunicorn_hands_on_a_line_that_is_too_long_for_us():
    """A client that sends 6 KB by GET reads our sentence, not gunicorn's bare 400."""
    arguments = _commands("127.0.0.1", 1)["web"]
    config = Config()
    limit = arguments[arguments.index("--limit-request-line") + 1]
    config.set("limit_request_line", int(limit))
    # Of base64's characters two in 64 are spelt with three in a URL.
    content = (bytes(range(256)) * 18)[: 6144 * 3 // 4]
    query = encoded(content).replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    assert len(encoded(content)) == 6144
    line = f"GET {ENDPOINT}?command=deployVirtualMachine&userdata={query}&{'x' * 600} HTTP/1.1\r\nHost: a\r\n\r\n"

    request = next(RequestParser(config, iter([line.encode()]), ("192.0.2.1", 1)))

    assert query in request.query


# As it is --------------------------------------------------------------------------------------------


def _yaml_bomb() -> bytes:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 8))
    return f"#cloud-config\na0: &a0 [{', '.join(['x'] * 9)}]\n{levels}".encode()


def _mime_of_many_parts() -> bytes:
    part = "--b\nContent-Type: text/plain\n\nx\n"
    return f'Content-Type: multipart/mixed; boundary="b"\nMIME-Version: 1.0\n\n{part * 10_000}--b--\n'.encode()


GZIPPED = gzip.compress(bytes(64 * MIB), mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(GZIPPED, id="gzip bomb"),
        pytest.param(gzip.compress(GZIPPED, mtime=0), id="gzip bomb, doubly packed"),
        pytest.param(_yaml_bomb(), id="YAML bomb"),
        pytest.param(_mime_of_many_parts(), id="MIME of many parts"),
        pytest.param(b"#!/bin/sh\r\necho \xff\xfe\0\r\n", id="a script with what no text has"),
    ],
)
def test_user_data_is_passed_through_unopened(content):
    Setting.objects.create(name="vm.userdata.max.length", value=str(MIB))
    fake, cluster = FakeHypervisor(), make_cluster()
    make_host(cluster)
    tracemalloc.start()
    try:
        with hypervisors(fake):
            vm = deploy(make_caller(), cluster, user_data=encoded(content))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert vm.user_data_bytes == content
    [drive] = [*fake.media.values(), *(image for images in fake.stored.values() for image in images.values())]
    # Once on the disc, under each of its names.
    assert drive.count(content) == 1
    # A few copies of what was sent, and nothing of what it stands for.
    assert peak < 16 * MIB
