"""The console's own pages."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console import panels
from extdhcp_site.console.access import may_administer


@login_required
def overview(request: HttpRequest) -> HttpResponse:
    """What the caller may see, one panel after the other."""
    caller = Caller.of(request.user)
    page = {"caller": caller, "may_administer": may_administer(request.user), "section": "overview"}
    found = [(panel, panel.context(caller, request.GET)) for panel in panels.registered()]
    shown = [
        render_to_string(panel.template, {**page, "panel": panel, **context}, request)
        for panel, context in found
        if context is not None
    ]
    return render(request, "console/overview.html", {**page, "panels": shown})
