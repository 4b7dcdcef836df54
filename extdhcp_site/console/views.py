"""The console's own pages."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console import panels


@login_required
def overview(request: HttpRequest) -> HttpResponse:
    """What the caller may see, one panel after the other."""
    caller = Caller.of(request.user)
    shown = [(panel, panel.context(caller)) for panel in panels.registered()]
    return render(request, "console/overview.html", {"panels": shown, "caller": caller})
