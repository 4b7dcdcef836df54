"""SSH key pairs."""

from django.db.models import QuerySet

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.answers import Answer
from extdhcp_site.api.owners import OwnedListParams, OwnerParams, ownership
from extdhcp_site.api.parameters import ObjectField, Text, Values, visible
from extdhcp_site.api.registry import EVERYBODY, Command, ListCommand, Success, command
from networks import public_keys
from networks.api.fields import text
from networks.api.infrastructure import by_id, matching
from networks.models import SshKeyPair
from networks.services import keys as services
from networks.services.keys import LONGEST_NAME, NewKeyPair


class KeyPairAnswer(Answer):
    id = text("uuid", "the key pair's id")
    name = text("name", "its name, by which a deploy asks for it")
    fingerprint = text("fingerprint", "MD5 of the public key, as ssh-keygen -l -E md5 shows it")
    account = text("account.name", "the account that owns it")
    domain = text("account.domain.name", "that account's domain")
    domainid = text("account.domain.uuid", "the id of that domain")


class NewKeyPairAnswer(Answer):
    id = text("pair.uuid", "the key pair's id")
    name = text("pair.name", "its name, by which a deploy asks for it")
    fingerprint = text("pair.fingerprint", "MD5 of the public key, as ssh-keygen -l -E md5 shows it")
    account = text("pair.account.name", "the account that owns it")
    domain = text("pair.account.domain.name", "that account's domain")
    domainid = text("pair.account.domain.uuid", "the id of that domain")
    privatekey = text("private_key", "the private key in PEM; it is shown this once and kept nowhere")


class ListSshKeyPairsParams(OwnedListParams):
    id = ObjectField("The key pair's id.", visible(SshKeyPair))
    name = Text("The key pair's name.")
    fingerprint = Text("The public key's fingerprint: MD5, as in the answer.")


@command(since="1.0", roles=EVERYBODY, name="listSSHKeyPairs")
class ListSshKeyPairs(ListCommand):
    """List the SSH key pairs, without their keys."""

    params = ListSshKeyPairsParams
    answer = ("sshkeypair", KeyPairAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[SshKeyPair]:
        pairs = SshKeyPair.objects.visible_to(caller).filter(ownership(caller, params))
        if params["keyword"]:
            pairs = pairs.filter(name__icontains=params["keyword"])
        asked = matching(params, name="name", fingerprint="fingerprint")
        return pairs.filter(by_id(params) & asked).select_related("account__domain")


class KeyPairParams(OwnerParams):
    name = Text("The key pair's name.", required=True, max_length=LONGEST_NAME)


class RegisterSshKeyPairParams(KeyPairParams):
    publickey = Text(
        "The public key, as in a .pub file: type, key, comment.",
        required=True,
        multiline=True,
        max_length=public_keys.LONGEST,
    )


@command(since="1.0", roles=EVERYBODY, name="registerSSHKeyPair")
class RegisterSshKeyPair(Command):
    """Keep a public SSH key under a name."""

    params = RegisterSshKeyPairParams
    answer = ("keypair", KeyPairAnswer)

    def run(self, caller: Caller, params: Values) -> SshKeyPair:
        return services.register(params["name"], params["publickey"], params["account"] or caller.account, caller)


@command(since="1.0", roles=EVERYBODY, name="createSSHKeyPair")
class CreateSshKeyPair(Command):
    """Make an SSH key pair. The answer has the private key, this once; only the public one is kept."""

    params = KeyPairParams
    answer = ("keypair", NewKeyPairAnswer)

    def run(self, caller: Caller, params: Values) -> NewKeyPair:
        return services.create(params["name"], params["account"] or caller.account, caller)


@command(since="1.0", roles=EVERYBODY, name="deleteSSHKeyPair")
class DeleteSshKeyPair(Command):
    """Forget an SSH key pair. VMs that were given it keep it."""

    params = KeyPairParams
    answer = Success

    def run(self, caller: Caller, params: Values) -> None:
        services.delete(params["name"], params["account"] or caller.account, caller)
