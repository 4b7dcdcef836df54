"""The admin as this product has it: who may enter, and what all its pages share."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import models, transaction
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console.access import may_administer
from extdhcp_site.errors import ApiError
from extdhcp_site.jobs.models import AsyncJob


class Site(admin.AdminSite):
    site_header = site_title = "extdhcp"
    index_title = "Administration"
    enable_nav_sidebar = False

    # The apps in the order of how often somebody comes for them.
    order = (
        "networks",
        "ipfetch",
        "configdrive",
        "events",
        "alerts",
        "jobs",
        "configuration",
        "accounts",
        "auth",
        "locks",
    )

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[dict[str, object]]:
        apps = super().get_app_list(request, app_label)
        return sorted(apps, key=lambda app: (*self.order, app["app_label"]).index(app["app_label"]))

    def has_permission(self, request: HttpRequest) -> bool:
        return may_administer(request.user)

    def each_context(self, request: HttpRequest) -> dict[str, object]:
        request.section = "admin"
        return super().each_context(request)

    def login(self, request: HttpRequest, extra_context: dict | None = None) -> HttpResponse:
        """The console's log-in page is the only one."""
        if request.user.is_authenticated:
            raise PermissionDenied("These pages are for root administrators.")
        return redirect_to_login(request.GET.get("next") or reverse("admin:index"), settings.LOGIN_URL)

    def password_change(self, request: HttpRequest, extra_context: dict | None = None) -> HttpResponse:
        """The console's page is the only one: it counts wrong guesses."""
        return redirect("account-password")


# Rows beyond these are not counted, nor turned to: a filter or the search finds them.
MOST_COUNTED = 10_000


class BoundedPaginator(Paginator):
    @cached_property
    def count(self) -> int:
        return self.object_list.order_by()[: MOST_COUNTED + 1].count()


def filter_by_known(title: str, field: str, values: Callable[[], Iterable[str]]) -> type[admin.SimpleListFilter]:
    """A filter by a column of words without `choices`: Django's own would look for them in the whole table."""

    class KnownValues(admin.SimpleListFilter):
        parameter_name = field

        def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
            return [(value, value) for value in values()]

        def queryset(self, request: HttpRequest, queryset: models.QuerySet) -> models.QuerySet:
            return queryset.filter(**{field: self.value()}) if self.value() else queryset

    KnownValues.title = title
    return KnownValues


class ModelAdmin(admin.ModelAdmin):
    """Writes go through `save_model` and `delete_model`; what these refuse is shown on the page."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    # Said above the list.
    note = ""
    # Fields that are chosen when the row is made and never change.
    fixed: Sequence[str] = ()

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        return [*super().get_readonly_fields(request, obj), *(self.fixed if obj else ())]

    def formfield_for_dbfield(self, db_field: models.Field, request: HttpRequest, **kwargs):
        """A page is about one thing: no buttons to make, change or delete what a field refers to."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field and isinstance(field.widget, RelatedFieldWidgetWrapper):
            field.widget = field.widget.widget
        return field

    def save_model(self, request: HttpRequest, obj: models.Model, form: ModelForm, change: bool) -> None:
        """Only the columns that the form changed: the system writes others of the row meanwhile."""
        # Also the rules that involve fixed fields, which the form leaves out.
        obj.validate_constraints()
        columns = {field.name for field in obj._meta.concrete_fields}
        obj.save(update_fields=columns.intersection(form.changed_data) if change else None)

    def changeform_view(self, request, object_id=None, form_url="", extra_context=None) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except (ApiError, ValidationError) as refusal:
            # Rolled back by now. The same form again, which says why.
            request.refusal = refusal
            return super().changeform_view(request, object_id, form_url, extra_context)

    def get_form(self, request: HttpRequest, obj: models.Model | None = None, **kwargs) -> type[ModelForm]:
        form = super().get_form(request, obj, **kwargs)
        refusal = getattr(request, "refusal", None)
        return _refusing(form, refusal) if refusal else _watching(form) if obj else form

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet) -> None:
        for obj in queryset:
            self.delete_model(request, obj)

    def delete_view(self, request, object_id, extra_context=None) -> HttpResponse:
        return self._or_say_why(request, lambda: super(ModelAdmin, self).delete_view(request, object_id, extra_context))

    def changelist_view(self, request, extra_context=None) -> HttpResponse:
        title = self.opts.verbose_name_plural
        context = {"title": title[:1].upper() + title[1:], "note": self.note, **(extra_context or {})}
        return self._or_say_why(request, lambda: super(ModelAdmin, self).changelist_view(request, context))

    def ask_first(
        self, request: HttpRequest, queryset: models.QuerySet, action: str, title: str, consequence: str
    ) -> TemplateResponse:
        """For an action that cannot be undone: its page comes back with `confirmed` in the form.

        Of rows that have them, `account` and `created_at` are shown.
        """
        words = {"title": title, "consequence": consequence, "action": action, "rows": queryset, "opts": self.opts}
        return TemplateResponse(
            request, "admin/confirm_action.html", {**self.admin_site.each_context(request), **words}
        )

    def submit_each(self, request: HttpRequest, rows: Iterable[models.Model], act: Callable[..., object]) -> None:
        """Each row by itself, by a job or at once; one that cannot is named with the reason, and the others go on."""
        by, submitted, done = caller(request), 0, 0
        for row in rows:
            try:
                submitted, done = (submitted + 1, done) if isinstance(act(row, by), AsyncJob) else (submitted, done + 1)
            except ApiError as refusal:
                self.message_user(request, f"{refusal.text} {refusal.for_operator}".strip(), messages.ERROR)
        if submitted:
            self.message_user(request, f"{submitted} job{'s' if submitted > 1 else ''} submitted.", messages.SUCCESS)
        if done:
            self.message_user(request, f"Done for {done}.", messages.SUCCESS)

    def _or_say_why(self, request: HttpRequest, view: Callable[[], HttpResponse]) -> HttpResponse:
        if request.method != "POST":
            return view()
        try:
            with transaction.atomic():
                return view()
        except (ApiError, models.ProtectedError) as error:
            text = error.text if isinstance(error, ApiError) else "Something came to use it meanwhile."
            self.message_user(request, text, messages.ERROR)
            return redirect(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")


def _refusing(form: type[ModelForm], refusal: ApiError | ValidationError) -> type[ModelForm]:
    class Refused(form):
        def clean(self) -> None:
            super().clean()
            raise ValidationError(refusal.text if isinstance(refusal, ApiError) else refusal.messages)

    return Refused


SEEN = "_seen"


def _watching(form: type[ModelForm]) -> type[ModelForm]:
    """One who saves what somebody else has changed since the page was opened is told, in place of overwriting it."""

    class Watched(form):
        @property
        def seen(self) -> str:
            """A digest of each field's value as it is now, for the page to send along."""
            return json.dumps({name: _digest(self.initial.get(name)) for name in self.fields})

        def clean(self) -> Mapping[str, object] | None:
            cleaned = super().clean()
            if changed := [name for name, digest in self._sent().items() if digest != _digest(self.initial.get(name))]:
                now = ", ".join(self._as_it_is(name) for name in changed)
                raise ValidationError(
                    f"Somebody else has changed this since you opened it: {now}. Nothing was saved. "
                    "Save again if what stands below is to take its place."
                )
            return cleaned

        def _sent(self) -> dict[str, str]:
            try:
                sent = json.loads(self.data.get(SEEN, "{}"))
            except ValueError:
                return {}
            return {name: digest for name, digest in sent.items() if name in self.fields} if type(sent) is dict else {}

        def _as_it_is(self, name: str) -> str:
            label = str(self.fields[name].label or name)
            if name == "password" or not isinstance(self.initial.get(name), str | int | None):
                return label
            shown = getattr(self.instance, f"get_{name}_display", lambda: getattr(self.instance, name, ""))()
            return f"{label} is now {shown if shown not in ('', None) else 'empty'}"

    return Watched


def _digest(value: object) -> str:
    if isinstance(value, list):
        value = sorted(str(getattr(each, "pk", each)) for each in value)
    return hashlib.sha256(str(value).encode()).hexdigest()[:16]


class RemovedByJob(ModelAdmin):
    """For what a job deletes: the stock button and action would say that it is gone already."""

    actions = ["remove"]
    # What is said before, and what submits the job: given the row and the caller.
    consequence = ""

    @staticmethod
    def submit_removal(row: models.Model, by: Caller) -> object:
        raise NotImplementedError

    def removable(self, request: HttpRequest, rows: models.QuerySet) -> models.QuerySet:
        """Those that the caller may remove."""
        return rows

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_remove_permission(self, request: HttpRequest) -> bool:
        return super().has_delete_permission(request)

    @admin.action(description="Delete selected %(verbose_name_plural)s", permissions=["remove"])
    def remove(self, request: HttpRequest, queryset: models.QuerySet) -> TemplateResponse | None:
        rows = self.removable(request, queryset)
        if request.POST.get("confirmed"):
            return self.submit_each(request, rows, self.submit_removal)
        return self.ask_first(
            request, rows, "remove", f"Delete these {self.opts.verbose_name_plural}", self.consequence
        )


class ReadOnlyAdmin(ModelAdmin):
    """For what the system owns: to be looked at, and acted on through services alone."""

    def has_add_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


def caller(request: HttpRequest) -> Caller:
    return Caller.of(request.user)
