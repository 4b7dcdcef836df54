"""Scripts for templates, for whoever builds one. They hold no secrets: nobody needs to log in."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from configdrive import guest_scripts
from configdrive.configuration import LABEL
from networks.volume_label import InvalidLabel, check_label

PLAIN_TEXT = "text/plain; charset=utf-8"


@require_safe
def guest_index(request: HttpRequest) -> HttpResponse:
    """What there is, each with the label that it will have."""
    try:
        label = _label(request)
    except InvalidLabel as error:
        return _bad_label(error)
    page = {"scripts": guest_scripts.scripts().items(), "label": label, "chosen": "label" in request.GET}
    return render(request, "configdrive/guest.html", page)


@require_safe
def guest_script(request: HttpRequest, name: str) -> HttpResponse:
    """One script as text, with the configured label or the one that the URL names."""
    try:
        return HttpResponse(guest_scripts.render(name, _label(request)), content_type=PLAIN_TEXT)
    except guest_scripts.NoSuchScript as error:
        raise Http404(f"No guest script {name[:80]!r}.") from error
    except InvalidLabel as error:
        return _bad_label(error)


def _label(request: HttpRequest) -> str:
    """Raises InvalidLabel."""
    label = request.GET.get("label")
    if label is None:
        return LABEL.get()
    check_label(label)
    return label


def _bad_label(error: InvalidLabel) -> HttpResponse:
    # A machine that fetches a script must not run this by mistake: it has no 200, and is a comment to a shell.
    return HttpResponse(f"# {error}\n", status=400, content_type=PLAIN_TEXT)
