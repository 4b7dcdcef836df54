"""The admin as this product has it: who may enter, and what all its pages share."""

from collections.abc import Callable, Iterable, Sequence

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models, transaction
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console.access import may_administer
from extdhcp_site.errors import ApiError


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


class ModelAdmin(admin.ModelAdmin):
    """Writes go through `save_model` and `delete_model`; what these refuse is shown on the page."""

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
        return _refusing(form, refusal) if refusal else form

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

        Rows have `account` and `created_at`.
        """
        words = {"title": title, "consequence": consequence, "action": action, "rows": queryset, "opts": self.opts}
        return TemplateResponse(
            request, "admin/confirm_action.html", {**self.admin_site.each_context(request), **words}
        )

    def submit_each(self, request: HttpRequest, rows: Iterable[models.Model], act: Callable[..., object]) -> None:
        """One job a row; a row that cannot is named with the reason, and the others go on."""
        by, submitted = caller(request), 0
        for row in rows:
            try:
                act(row, by)
                submitted += 1
            except ApiError as refusal:
                self.message_user(request, f"{refusal.text} {refusal.for_operator}".strip(), messages.ERROR)
        if submitted:
            self.message_user(request, f"{submitted} job{'s' if submitted > 1 else ''} submitted.", messages.SUCCESS)

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
