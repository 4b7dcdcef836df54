"""Every setting there is, also those that still have their default."""

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import urlencode

from extdhcp_site.configuration.models import Setting, definitions, set_value
from extdhcp_site.console.administration import ModelAdmin, caller


class SettingForm(forms.ModelForm):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        definition = next(known for known in definitions() if known.name == self.instance.name)
        if "value" in self.fields:
            self.fields["value"].label = definition.name
            self.fields["value"].help_text = f"{definition.help} Default: {definition.default}."


@admin.register(Setting)
class SettingAdmin(ModelAdmin):
    """A page is known by its setting's name: the row exists only once the value was changed."""

    form = SettingForm
    fields = ["value", "changed_at", "changed_by"]
    readonly_fields = ["changed_at", "changed_by"]

    def has_add_permission(self, request: HttpRequest, obj: Setting | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Setting | None = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict | None = None) -> HttpResponse:
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        stored = {setting.name: setting for setting in Setting.objects.all()}
        context = {
            **self.admin_site.each_context(request),
            "title": "Settings",
            "opts": self.opts,
            "rows": [
                (definition, stored.get(definition.name)) for definition in definitions() if not definition.secret
            ],
        }
        return TemplateResponse(request, "admin/configuration/setting/change_list.html", context)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Setting | None:
        definition = next((known for known in definitions() if known.name == object_id), None)
        # A secret one is set on the console's page.
        if definition is None or definition.secret:
            return None
        stored = Setting.objects.filter(name=object_id).first()
        return stored or Setting(name=definition.name, value=definition.default, changed_at=None)

    def save_model(self, request: HttpRequest, obj: Setting, form: forms.ModelForm, change: bool) -> None:
        set_value(obj.name, form.cleaned_data["value"], by=caller(request))
        obj.pk = Setting.objects.only("pk").get(name=obj.name).pk

    def history_view(self, request: HttpRequest, object_id: str, extra_context: dict | None = None) -> HttpResponse:
        return redirect(f"{reverse('admin:events_event_changelist')}?{urlencode({'q': object_id})}")
