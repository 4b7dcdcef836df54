"""The console's pages: each declared once, with who may open it and where the menu leads to it.

@page("nics/", name="nics", roles=EVERYBODY, menu=Menu("NICs", order=20))
def nics(request, caller):
    return render(request, "ipfetch/nics.html", {"table": NICS.of(request, caller)})

A page shows; what it changes is a command of the API's (see `commands`). What a page shows is narrowed by
`visible_to(caller)`: what belongs to others answers like what does not exist.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import wraps
from typing import TypeVar

from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path
from django.views.decorators.http import require_http_methods

from extdhcp_site.accounts.models import Caller, Role


@dataclass(frozen=True)
class Menu:
    """A place in the bar; lower `order` stands further left.

    `count`: the number beside it, nothing at 0, and 1000 for as many or more.
    """

    title: str
    order: int
    count: Callable[[Caller], int] | None = None


@dataclass(frozen=True)
class Page:
    """`section` is the name of the menu's page that this one lies under."""

    route: str
    name: str
    roles: frozenset[Role]
    view: Callable[..., HttpResponseBase]
    menu: Menu | None
    section: str


V = TypeVar("V", bound=Callable[..., HttpResponseBase])
_pages: dict[str, Page] = {}


def page(
    route: str,
    *,
    name: str,
    roles: Collection[Role],
    menu: Menu | None = None,
    section: str = "",
    posts: bool = False,
) -> Callable[[V], V]:
    """Register a view, which is given the request, the caller, and the names in the route.

    `posts`: it has a form of its own, a `CommandForm`. Raises TypeError for a page that does not say for which roles
    it is, or whose name is taken.
    """
    if not roles or not all(isinstance(role, Role) for role in roles):
        raise TypeError("roles: name who may open the page, for instance EVERYBODY.")
    if name in _pages:
        raise TypeError(f"There is a page named {name} already.")

    def register(view: V) -> V:
        methods = ["GET", "HEAD", "POST"] if posts else ["GET", "HEAD"]
        found = Page(route, name, frozenset(roles), view, menu, section or name)
        _pages[name] = Page(**{**vars(found), "view": require_http_methods(methods)(_guarded(found))})
        return view

    return register


def _guarded(it: Page) -> Callable[..., HttpResponseBase]:
    @wraps(it.view)
    def guarded(request: HttpRequest, **names: str) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return _to_the_log_in(request)
        caller = Caller.of(request.user)
        if caller.role not in it.roles:
            raise Http404
        request.section = it.section
        return it.view(request, caller, **names)

    return guarded


def _to_the_log_in(request: HttpRequest) -> HttpResponse:
    if "HX-Request" in request.headers:
        # The script that asked for a fragment would put the log-in page in its place.
        return HttpResponse(status=401, headers={"HX-Refresh": "true"})
    return redirect_to_login(request.get_full_path())


def registered() -> list[Page]:
    return list(_pages.values())


def urls() -> list[URLPattern]:
    return [path(it.route, it.view, name=it.name) for it in registered()]


@dataclass(frozen=True)
class MenuEntry:
    title: str
    url_name: str
    count: int
    is_here: bool


def menu_of(caller: Caller, section: str) -> list[MenuEntry]:
    """What the bar offers to the caller."""
    offered = sorted(
        ((it.menu, it) for it in registered() if it.menu and caller.role in it.roles), key=lambda pair: pair[0].order
    )
    return [
        MenuEntry(menu.title, it.name, menu.count(caller) if menu.count else 0, it.name == section)
        for menu, it in offered
    ]
