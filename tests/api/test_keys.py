"""SSH key pairs by the wire: what is kept, what is shown once, and what is no key."""

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from extdhcp_site.accounts.models import Role
from extdhcp_site.api import throttling
from extdhcp_site.events.models import Event
from networks.models import SshKeyPair, VirtualMachine
from networks.public_keys import LONGEST, NotAPublicKey, public_key_line
from tests.api.client import Reply, Signer
from tests.factories import (
    make_account,
    make_cluster,
    make_domain,
    make_host,
    make_network,
    make_service_offering,
    make_template,
)


def line_of(key) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def blob_of(*parts: bytes) -> str:
    """RFC 4251, section 5: strings, each after its length."""
    return base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).decode()


def rsa_of(bits: int) -> str:
    """A key of the right shape, for which there need not be a private half."""
    modulus = ((1 << bits) - 1).to_bytes(bits // 8 + 1, "big")
    return f"ssh-rsa {blob_of(b'ssh-rsa', (65537).to_bytes(3, 'big'), modulus)}"


# Always the same: tests are named for it, and tests that are shared out must be named alike in each process.
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
LINE = line_of(ED25519)
KIND, BODY = LINE.split()
RSA = rsa.generate_private_key(65537, 2048)
PEM = ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
OPENSSH = ED25519.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
TRADITIONAL = RSA.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
ENCRYPTED = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
SK_ED25519 = "sk-ssh-ed25519@openssh.com"


@pytest.fixture
def user(db) -> Signer:
    return Signer.of(make_account())


def refused(reply: Reply, *words: str) -> None:
    assert (reply.status, reply.body.get("cserrorcode")) == (431, 4350), reply
    for word in words:
        assert word in reply.text


def registered(signer: Signer, name: str = "laptop", key: str = LINE, **params: object) -> dict:
    reply = signer.call("registerSSHKeyPair", method="post", name=name, publickey=key, **params)
    assert reply.status == 200, reply
    return reply.body["keypair"]


def ssh_keygen(tmp_path: Path, content: str, *words: str) -> str:
    (tmp_path / "key").write_text(content)
    (tmp_path / "key").chmod(0o600)
    command = ["ssh-keygen", *words, "-f", str(tmp_path / "key")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# What is kept and shown ------------------------------------------------------------------------------


def test_a_registered_key_is_listed_with_the_fingerprint_that_ssh_keygen_shows(user, tmp_path):
    """Ansible compares its own MD5 with ours, and registers the key anew when they differ."""
    account = user.caller.account
    shown = registered(user, key=f"{LINE} me@laptop")

    pair = SshKeyPair.objects.get()
    assert (pair.account, pair.name, pair.public_key) == (account, "laptop", f"{LINE} me@laptop")
    assert shown == {
        "id": str(pair.uuid),
        "name": "laptop",
        "fingerprint": ssh_keygen(tmp_path, LINE, "-l", "-E", "md5").split()[1].removeprefix("MD5:"),
        "account": account.name,
        "domain": account.domain.name,
        "domainid": str(account.domain.uuid),
    }
    assert user.call("listSSHKeyPairs").body == {"count": 1, "sshkeypair": [shown]}


def test_a_created_pairs_private_key_is_shown_once_and_kept_nowhere(user, tmp_path):
    made = user.call("createSSHKeyPair", name="new").body["keypair"]

    private = made.pop("privatekey")
    assert private.startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    pair = SshKeyPair.objects.get()
    assert ssh_keygen(tmp_path, private, "-y").strip() == pair.public_key
    assert "3072" in ssh_keygen(tmp_path, pair.public_key, "-l")
    # What the list shows is the same but for the private key.
    assert user.call("listSSHKeyPairs", name="new").body["sshkeypair"] == [made]
    inside = "".join(private.split()[4:-4])
    kept = [*SshKeyPair.objects.values().get().values(), *Event.objects.values().get().values()]
    assert not [value for value in kept if inside[100:140] in str(value) or "PRIVATE" in str(value)]


def test_each_change_leaves_an_event(user):
    registered(user)
    user.call("deleteSSHKeyPair", name="laptop")

    assert list(Event.objects.order_by("id").values_list("type", "resource_name", "username")) == [
        ("REGISTER.SSH.KEYPAIR", "laptop", user.user.username),
        ("DELETE.SSH.KEYPAIR", "laptop", user.user.username),
    ]


def test_lists_are_narrowed_by_name_fingerprint_keyword_and_id(user):
    """By the whole name: Ansible and Terraform take the first of what comes."""
    pairs = {name: registered(user, name, line_of(key)) for name, key in (("laptop", ED25519), ("laptop-2", RSA))}
    pairs["desk"] = registered(user, "desk", line_of(ec.generate_private_key(ec.SECP256R1())))

    def listed(**asked: str) -> list[str]:
        return sorted(pair["name"] for pair in user.call("listSSHKeyPairs", **asked).body.get("sshkeypair", []))

    assert listed(name="laptop") == ["laptop"]
    assert listed(fingerprint=pairs["laptop-2"]["fingerprint"]) == ["laptop-2"]
    assert listed(keyword="TOP") == ["laptop", "laptop-2"]
    assert listed(id=pairs["desk"]["id"]) == ["desk"]
    assert user.call("listSSHKeyPairs", name="nobody's").body == {}


def test_a_deleted_pair_is_gone_from_lists_and_stays_with_its_vms(user):
    host = make_host(make_cluster())
    zone = host.cluster.pod.zone
    registered(user)
    answer = user.call(
        "deployVirtualMachine",
        zoneid=zone.uuid,
        templateid=make_template().uuid,
        serviceofferingid=make_service_offering().uuid,
        networkids=make_network(zone).uuid,
        keypair="laptop",
    ).body

    assert user.call("deleteSSHKeyPair", name="laptop").body["success"] is True

    assert user.call("listSSHKeyPairs").body == {}
    vm = VirtualMachine.objects.get(uuid=answer["id"])
    assert vm.ssh_keys == [{"name": "laptop", "public_key": LINE}]


# Whose they are ------------------------------------------------------------------------------------


def test_a_name_is_taken_once_in_an_account(user):
    registered(user)
    refused(user.call("registerSSHKeyPair", method="post", name="laptop", publickey=LINE), "already exists")
    refused(user.call("createSSHKeyPair", name="laptop"), "already exists")
    registered(Signer.of(make_account()))
    assert SshKeyPair.objects.count() == 2


def test_a_name_that_is_taken_meanwhile_is_refused_alike(user, monkeypatch):
    registered(user)
    monkeypatch.setattr("networks.services.keys._check_name", lambda name, account: None)
    refused(user.call("registerSSHKeyPair", method="post", name="laptop", publickey=LINE), "already exists")
    assert (SshKeyPair.objects.count(), Event.objects.count()) == (1, 1)


@pytest.mark.parametrize("name", ["RESUME", "resume", "Résumé", "résumé "])
def test_a_pair_goes_by_its_very_name(user, name):
    """MariaDB takes all of these for one."""
    registered(user, name="résumé")
    refused(user.call("deleteSSHKeyPair", name=name), "does not exist")
    assert SshKeyPair.objects.exists()


def test_an_account_has_so_many_made_and_no_more(user, monkeypatch, settings):
    monkeypatch.setattr("networks.services.keys.NEW_KEY_BITS", 1024)
    settings.WEB_PROCESSES = throttling.KEY_PAIRS_A_MINUTE // 2
    statuses = [user.call("createSSHKeyPair", name=f"k{number}").status for number in range(3)]
    assert statuses == [200, 200, 429]
    assert Signer.of(make_account()).call("createSSHKeyPair", name="k").status == 200


@pytest.mark.django_db
@pytest.mark.parametrize("role", [Role.USER, Role.DOMAIN_ADMIN])
def test_anothers_key_pair_answers_as_one_that_does_not_exist(role):
    domain = make_domain()
    stranger = Signer.of(make_account(role, make_domain()))
    account = make_account(domain=domain)
    registered(Signer.of(account))

    missing = stranger.call("deleteSSHKeyPair", name="nothing").text.replace("nothing", "laptop")
    refused(stranger.call("deleteSSHKeyPair", name="laptop"), missing)
    # The words are Terraform's sign that it is gone already.
    assert missing.startswith("A key pair with name 'laptop' does not exist for account")
    for command in ("deleteSSHKeyPair", "createSSHKeyPair"):
        theirs = stranger.call(command, name="laptop", account=account.name)
        assert theirs.text.replace(account.name, "x") == stranger.call(command, name="laptop", account="x").text
    assert SshKeyPair.objects.get().account == account


def test_an_administrator_acts_for_an_account(db):
    admin = Signer.of(make_account(Role.ROOT_ADMIN))
    account = make_account(domain=make_domain())
    owner = {"account": account.name, "domainid": account.domain.uuid}

    registered(admin, **owner)
    assert admin.call("createSSHKeyPair", name="new", **owner).body["keypair"]["account"] == account.name
    assert admin.call("listSSHKeyPairs").body == {}
    assert admin.call("listSSHKeyPairs", **owner).body["count"] == 2
    refused(admin.call("deleteSSHKeyPair", name="laptop"), "does not exist")
    assert admin.call("deleteSSHKeyPair", name="laptop", **owner).status == 200
    assert set(Event.objects.values_list("account", "username")) == {(account.pk, admin.user.username)}


# What is a key -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        LINE,
        line_of(RSA),
        *(line_of(ec.generate_private_key(curve())) for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)),
        f"{SK_ED25519} {blob_of(SK_ED25519.encode(), bytes.fromhex('d75a980182b10ab7') * 4, b'ssh:')}",
        f"{LINE} Zoë's  laptop, ssh-rsa of old",
    ],
)
def test_a_key_is_kept_as_it_is(line):
    assert public_key_line(line) == line


@pytest.mark.parametrize("pasted", [f"{LINE}\n", f"  {LINE}\r\n\r\n", f"{KIND}   {BODY}", f"\n{LINE}"])
def test_white_space_around_a_key_is_not_part_of_it(pasted):
    assert public_key_line(pasted) == LINE


NO_KEYS = [
    ("nonsense", "no public key"),
    (KIND, "damaged or cut off"),
    (BODY, "no public key"),
    (LINE[:-8], "damaged or cut off"),
    (f"{KIND} {BODY[:20]}!{BODY[20:]}", "damaged or cut off"),
    (f"{KIND} {blob_of(b'ssh-ed25519', b'x' * 32, b'more')}", "damaged or cut off"),
    (f"ssh-rsa {BODY}", "damaged or cut off"),
    (f"ssh-foo {blob_of(b'ssh-foo', b'x')}", "its type is ssh-ed25519"),
    (f"ssh-dss {blob_of(b'ssh-dss', b'x')}", "DSA"),
    (rsa_of(1024), "1024 bits"),
    (rsa_of(16392), "16392 bits"),
    (f'command="reboot" {LINE}', "options"),
    (f"no-pty,from=192.0.2.1 {LINE}", "options"),
    (f"{LINE}\n{LINE}", "several lines"),
    (f"{LINE}\nruncmd: [reboot]", "several lines"),
    (f"{LINE} a\u2028{LINE}", "several lines"),
    (f"{LINE} \u202ereversed", "control characters"),
    (f"ssh-ed25519-cert-v01@openssh.com {BODY}", "certificate"),
    ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----", "ssh-keygen -i"),
    (RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(), "ssh-keygen -i"),
    (f"{LINE} {'x' * LONGEST}", f"has {len(LINE) + 1 + LONGEST} characters"),
]


@pytest.mark.parametrize(("pasted", "says"), NO_KEYS)
def test_what_is_no_key_is_refused_with_what_to_do(pasted, says):
    with pytest.raises(NotAPublicKey, match=says) as caught:
        public_key_line(pasted)
    assert BODY[20:40] not in str(caught.value)


PRIVATE_KEYS = [
    *(PEM, OPENSSH, TRADITIONAL, ENCRYPTED),
    " ".join(OPENSSH.splitlines()),
    "".join(OPENSSH.splitlines()[1:-1]),
    f"{LINE}\n{OPENSSH}",
    "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\nAAAAIHBy",
    "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nP2/56wAAAgIAAAAm\n---- END SSH2 ENCRYPTED PRIVATE KEY ----",
]


@pytest.mark.parametrize("pasted", PRIVATE_KEYS)
def test_a_private_key_is_refused_and_nothing_of_it_comes_back(user, pasted):
    lines = {line for line in pasted.splitlines() if len(line) > 8 and "KEY" not in line and line != LINE}
    for params in ({"name": "x", "publickey": pasted}, {"name": pasted, "publickey": LINE}):
        response = user.raw(("command", "registerSSHKeyPair"), ("response", "json"), method="post", **params)
        assert response.status_code == 431
        answered = f"{response.content.decode()} {response.headers}"
        assert not [line for line in lines if line in answered]
    refused(user.call("registerSSHKeyPair", method="post", name="x", publickey=pasted), "private key", "new pair")
    assert not SshKeyPair.objects.exists()


@pytest.mark.parametrize("pasted", [f"{LINE} nul\0", f"{LINE}\t", f"{LINE} {'x' * 20_000}", "", "\n"])
def test_what_the_wire_refuses_is_no_key_either(user, pasted):
    reply = user.call("registerSSHKeyPair", method="post", name="x", publickey=pasted)
    assert reply.status == 431
    assert not SshKeyPair.objects.exists()


@pytest.mark.parametrize("name", ["", "a,b", " a", "a ", "x" * 101, "a\nb", "a\0b", "a\u2028b"])
def test_a_name_that_a_deploy_could_not_spell_is_refused(user, name):
    """`keypairs` has commas between names, and takes the blanks around them away."""
    assert user.call("registerSSHKeyPair", method="post", name=name, publickey=LINE).status == 431
    assert user.call("createSSHKeyPair", name=name).status == 431
    assert not SshKeyPair.objects.exists()
