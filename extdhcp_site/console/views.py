"""The console's own pages: the overview, and what every button leads to."""

import json

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.registry import EVERYBODY, AsyncCommand
from extdhcp_site.console import commands, panels
from extdhcp_site.console.pages import Menu, page
from extdhcp_site.errors import ApiError


@page("", name="overview", roles=EVERYBODY, menu=Menu("Overview", order=0))
def overview(request: HttpRequest, caller: Caller) -> HttpResponse:
    """What the caller may see, one panel after the other; with `panel` in the URL that one alone, as it is now."""
    wanted = request.GET.get("panel")
    found = [panel for panel in panels.registered() if wanted in (None, panel.slug)]
    shown = [text for text in (_shown(panel, request, caller) for panel in found) if text]
    if wanted is None:
        return render(request, "console/overview.html", {"panels": shown})
    if not shown:
        raise Http404
    return HttpResponse(shown[0])


def _shown(panel: panels.Panel, request: HttpRequest, caller: Caller) -> str:
    """Empty if it is not for the caller."""
    context = panel.context(caller, request.GET)
    return "" if context is None else render_to_string(panel.template, {"panel": panel, **context}, request)


@require_POST
def do(request: HttpRequest, command: str) -> HttpResponse:
    """Carry out the command behind a button, and go back to the page with the button.

    The form's fields are the command's parameters; `_then` is the page to go to, `_label` says what was done, and with
    `_show` the answer is shown, once.
    """
    then = _path_here(request.POST.get("_then", ""))
    if not request.user.is_authenticated:
        return redirect_to_login(then)
    caller = Caller.of(request.user)
    try:
        found, answer = commands.run(command, caller, commands.sent(request.POST))
    except ApiError as refusal:
        messages.error(request, commands.words(refusal, caller))
        return HttpResponseRedirect(then)
    label = request.POST.get("_label", "") or found.name
    if "_show" in request.POST:
        shown = json.dumps(answer, indent=2, ensure_ascii=False)
        return render(request, "console/answer.html", {"label": label, "then": then, "answer": answer, "json": shown})
    if issubclass(found, AsyncCommand):
        job = reverse("job", args=[answer["jobid"]])
        messages.success(request, format_html('{}: begun. <a href="{}">Follow its job</a>', label, job))
    else:
        messages.success(request, f"{label}: done.")
    return HttpResponseRedirect(then)


def _path_here(url: str) -> str:
    """The URL if it is a path on this server, else the overview's."""
    is_here = url.startswith("/") and url_has_allowed_host_and_scheme(url, allowed_hosts=None)
    return url if is_here and url.isprintable() else reverse("overview")
