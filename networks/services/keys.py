"""SSH key pairs: the public half under a name. The private half is never kept."""

from dataclasses import dataclass, field

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.db import transaction

from extdhcp_site.accounts.models import Account, Caller
from extdhcp_site.accounts.services.removal import refuse_if_removed
from extdhcp_site.api import throttling
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.models import called
from extdhcp_site.uniqueness import unless_taken
from networks.models import SshKeyPair
from networks.public_keys import NotAPublicKey, public_key_line

LONGEST_NAME = 100
NEW_KEY_BITS = 3072


@dataclass(frozen=True)
class NewKeyPair:
    """A pair just made, with its private half in clear for the one time that it is shown."""

    pair: SshKeyPair
    private_key: str = field(repr=False)


def register(name: str, public_key: str, account: Account, by: Caller) -> SshKeyPair:
    """Keep a public key under a name. Raises InvalidParameter, which quotes nothing of the key."""
    _check_name(name, account)
    try:
        line = public_key_line(public_key)
    except NotAPublicKey as error:
        raise InvalidParameter(f"publickey: {error}") from None
    return _keep(name, line, account, by)


def create(name: str, account: Account, by: Caller) -> NewKeyPair:
    """Make a pair, keep its public half and hand out the private one. Raises TooManyRequests."""
    _check_name(name, account)
    throttling.admit_key_pair(by.account.pk)
    # RSA in PEM, as CloudStack makes them (there 2048 bits): what scripts hand on to PuTTYgen, old Paramiko or
    # Windows is read there, which OpenSSH's own format and Ed25519 are not. 3072 bits: NIST SP 800-57, 128 bit level.
    key = rsa.generate_private_key(public_exponent=65537, key_size=NEW_KEY_BITS)
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return NewKeyPair(_keep(name, line.decode(), account, by), private.decode())


def delete(name: str, account: Account, by: Caller) -> None:
    """Forget a pair. The VMs that were given it keep their copy."""
    with transaction.atomic():
        pair = called(name, SshKeyPair.objects.select_for_update().filter(account=account))
        if pair is None:
            # Word for word: Terraform takes this for "already gone".
            raise InvalidParameter(f"A key pair with name '{name}' does not exist for account {account.name}.")
        events.record(EventType.SSH_KEY_PAIR_DELETE, f"SSH key pair {pair} deleted", account=account, on=pair, by=by)
        pair.delete()


def _check_name(name: str, account: Account) -> None:
    if not name or len(name) > LONGEST_NAME or "," in name or name != name.strip():
        # With a comma or a blank around it, `keypairs` could not name it.
        raise InvalidParameter(
            f"name: a key pair's name has 1 to {LONGEST_NAME} characters, no comma, and no blank at its ends."
        )
    if SshKeyPair.objects.filter(account=account, name=name).exists():
        raise _taken(name)


def _keep(name: str, public_key: str, account: Account, by: Caller) -> SshKeyPair:
    with transaction.atomic():
        with unless_taken(_taken(name)):
            pair = SshKeyPair.objects.create(account=account, name=name, public_key=public_key)
        refuse_if_removed(account)
        text = f"SSH key pair {pair} registered, fingerprint {pair.fingerprint}"
        events.record(EventType.SSH_KEY_PAIR_REGISTER, text, account=account, on=pair, by=by)
    return pair


def _taken(name: str) -> InvalidParameter:
    return InvalidParameter(f"A key pair with name '{name}' already exists. Choose another name, or delete that one.")
