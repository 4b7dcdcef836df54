"""From an object that is only named, in an event or a job, to its page."""

from uuid import UUID

from django.urls import NoReverseMatch, reverse

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console import pages

# By what events call them; the apps above declare the pages.
PAGES = {
    "VirtualMachine": "vm",
    "Nic": "nic",
    "Network": "network",
    "NetworkOffering": "network-offering",
    "ServiceOffering": "service-offering",
    "Template": "template",
    "Zone": "zone",
    "Cluster": "cluster",
    "Host": "host",
    "Endpoint": "endpoint",
    "Account": "account",
    "User": "user",
}


def page_of(kind: str, uuid: UUID | None, caller: Caller) -> str:
    """Where the object's page is, or was, if it is gone; empty where there is none for the caller's role."""
    name = PAGES.get(kind, "")
    page = next((page for page in pages.registered() if page.name == name), None)
    if uuid is None or page is None or caller.role not in page.roles:
        return ""
    try:
        return reverse(name, args=[uuid])
    except NoReverseMatch:
        return ""
