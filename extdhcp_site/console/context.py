"""What every page's template knows, the admin's too."""

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console import pages
from extdhcp_site.console.access import may_administer


def console(request: HttpRequest) -> dict[str, object]:
    """The caller and the menu; nothing for somebody who is not logged in."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    caller = Caller.of(user)
    section = getattr(request, "section", "")
    return {
        "caller": caller,
        "section": section,
        "may_administer": may_administer(user),
        "menu": SimpleLazyObject(lambda: pages.menu_of(caller, section)),
    }
