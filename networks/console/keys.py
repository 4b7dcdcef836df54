"""SSH key pairs: the list, and how one comes to be there."""

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.registry import EVERYBODY
from extdhcp_site.console.commands import Action
from extdhcp_site.console.forms import Ask, CommandForm
from extdhcp_site.console.lists import Column, Filter, ListOf
from extdhcp_site.console.pages import Menu, page
from networks.models import SshKeyPair

_NAME = Ask("name", "Name", "By which a deploy asks for it.")


def _with_actions(rows, caller: Caller) -> list[SshKeyPair]:
    pairs = list(rows.select_related("account__domain"))
    for pair in pairs:
        pair.actions = [_delete(pair, caller)]
    return pairs


def _delete(pair: SshKeyPair, caller: Caller) -> Action:
    owner = {"account": pair.account.name, "domainid": str(pair.account.domain.uuid)}
    return Action(
        "deleteSSHKeyPair",
        "Delete",
        {"name": pair.name, **({} if pair.account_id == caller.account.pk else owner)},
        sure=f"The key pair {pair.name} is forgotten: no VM can be given it any more. VMs that have it keep it.",
        is_destructive=True,
    )


KEY_PAIRS: ListOf[SshKeyPair] = ListOf(
    "key-pairs",
    "SSH keys",
    rows=lambda caller: SshKeyPair.objects.visible_to(caller).order_by("name", "pk"),
    columns=[
        Column("Name", lambda pair: pair.name, sort="name"),
        Column("Fingerprint (MD5)", lambda pair: pair.fingerprint or "not known", code=True),
        Column("Account", lambda pair: pair.account),
        Column("Actions", lambda pair: "", "networks/key_pair_actions.html", short=True),
    ],
    filters=[
        Filter("name", "Name", lambda rows, text, caller: rows.filter(name__icontains=text)),
        Filter("account", "Account", lambda rows, text, caller: rows.filter(account__name__icontains=text)),
    ],
    complete=_with_actions,
    template="networks/key_pairs.html",
    nothing="There is none. Make one, or register the public half of one that you have.",
)


@page("key-pairs/", name="key-pairs", roles=EVERYBODY, menu=Menu("SSH keys", order=70))
def key_pairs(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    return KEY_PAIRS.respond(request, caller)


@page("key-pairs/register/", name="register-key-pair", roles=EVERYBODY, section="key-pairs", posts=True)
def register_key_pair(request: HttpRequest, caller: Caller) -> HttpResponse:
    public = Ask("publickey", "Public key", "The line in your .pub file.", placeholder="ssh-ed25519 AAAA… you@laptop")
    form = CommandForm("registerSSHKeyPair", request, caller, [_NAME, public])
    if form.submit() is not None:
        return redirect("key-pairs")
    return render(request, "networks/register_key_pair.html", {"form": form})


@page("key-pairs/new/", name="new-key-pair", roles=EVERYBODY, section="key-pairs", posts=True)
def new_key_pair(request: HttpRequest, caller: Caller) -> HttpResponse:
    """The private key is shown in answer to the form, and never again."""
    form = CommandForm("createSSHKeyPair", request, caller, [_NAME])
    answer = form.submit()
    return render(request, "networks/new_key_pair.html", {"form": form, "made": answer["keypair"] if answer else None})
