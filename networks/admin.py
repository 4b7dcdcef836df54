"""The cloud in the admin: what a person makes goes through the API's services; what the system owns is to look at."""

from django import forms
from django.contrib import admin, messages
from django.db.models import BooleanField, ExpressionWrapper, Model, Q, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console.administration import ModelAdmin, ReadOnlyAdmin, RemovedByJob, caller, filter_by_known
from extdhcp_site.jobs.models import AsyncJob
from networks.hypervisors.base import Source
from networks.models import (
    AddressState,
    Cluster,
    Endpoint,
    GuestType,
    Host,
    Network,
    NetworkOffering,
    Nic,
    NicSecondaryIp,
    OfferedService,
    Pod,
    PrimaryStorage,
    Provider,
    ResourceTag,
    Service,
    ServiceOffering,
    SshKeyPair,
    Template,
    VirtualMachine,
    Volume,
    Zone,
)
from networks.models.infrastructure import AllocationState
from networks.models.offerings import TemplateFormat
from networks.services import infrastructure, keys, nics, offerings, templates, vms
from networks.services import networks as services
from networks.services.infrastructure import Size, WantedEndpoint

# Infrastructure ---------------------------------------------------------------------------------


class PlaceAdmin(ModelAdmin):
    def create(self, obj: Model, by: Caller) -> Model:
        raise NotImplementedError

    def save_model(self, request: HttpRequest, obj: Model, form: forms.ModelForm, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
        else:
            obj.pk = self.create(obj, caller(request)).pk


@admin.register(Zone)
class ZoneAdmin(PlaceAdmin):
    fields = [
        "name",
        "allocation_state",
        "domain",
        "dns1",
        "dns2",
        "internal_dns1",
        "bridge_pattern",
        "config_drive_label",
    ]
    list_display = ["name", "allocation_state", "domain", "dns1", "bridge_pattern"]
    list_select_related = ["domain"]
    list_filter = ["allocation_state"]
    search_fields = ["name"]
    autocomplete_fields = ["domain"]

    def create(self, obj: Zone, by: Caller) -> Zone:
        return infrastructure.create_zone(obj, by)


@admin.register(Pod)
class PodAdmin(PlaceAdmin):
    fields = ["name", "zone"]
    fixed = ["zone"]
    list_display = ["name", "zone"]
    list_select_related = ["zone"]
    list_filter = ["zone"]
    search_fields = ["name", "zone__name"]

    def create(self, obj: Pod, by: Caller) -> Pod:
        return infrastructure.create_pod(obj.zone, obj.name, by)


@admin.register(Cluster)
class ClusterAdmin(PlaceAdmin):
    fields = ["name", "pod", "hypervisor"]
    fixed = ["pod", "hypervisor"]
    list_display = ["name", "pod", "hypervisor"]
    list_select_related = ["pod"]
    list_filter = ["hypervisor", "pod__zone"]
    search_fields = ["name", "pod__name"]

    def create(self, obj: Cluster, by: Caller) -> Cluster:
        return infrastructure.add_cluster(obj.pod, obj.name, obj.hypervisor, by)


class EndpointForm(forms.ModelForm):
    new_password = forms.CharField(
        label="Password",
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password", "class": "vTextField"}),
        help_text="Empty keeps the one that is stored. It is never shown.",
    )


@admin.register(Endpoint)
class EndpointAdmin(ModelAdmin):
    form = EndpointForm
    readonly_fields = ["stored_password", "last_ok_at", "up_since", "last_error", "failures", "retry_at", "stuck_calls"]
    fieldsets = [
        (None, {"fields": ["name", "kind", "transport", "host", "port", "username", "disk_access"]}),
        (
            "Trust",
            {
                "fields": ["ca_certificates", "fingerprint"],
                "description": "Of XenServer and VMware, whose certificates are often their own: how this server knows "
                "that it speaks to the right one. It is never taken on trust.",
            },
        ),
        (
            "Password",
            {
                "fields": ["stored_password", "new_password"],
                "description": "A password is for the host that it was given for: a change of kind, transport, host, "
                "port, user or trust clears it.",
            },
        ),
        (
            "Health",
            {
                "fields": ["last_ok_at", "up_since", "last_error", "failures", "retry_at", "stuck_calls"],
                "description": "One that does not answer is left alone for longer with each failure in a row, a minute "
                "at most. Stuck calls are those of the address readers that do not come back.",
            },
        ),
    ]
    list_display = ["name", "kind", "transport", "host", "port", "last_ok_at", "last_error", "failures", "stuck_calls"]
    list_filter = ["kind", "transport", ("last_error", admin.EmptyFieldListFilter)]
    search_fields = ["name", "host", "last_error"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Endpoint]:
        stored = ExpressionWrapper(Q(password__isnull=False), output_field=BooleanField())
        return super().get_queryset(request).annotate(has_password=stored)

    @admin.display(description="Stored")
    def stored_password(self, endpoint: Endpoint) -> str:
        return "yes" if getattr(endpoint, "has_password", False) else "none"

    def save_model(self, request: HttpRequest, obj: Endpoint, form: EndpointForm, change: bool) -> None:
        by, given = caller(request), form.cleaned_data
        password, columns = given["new_password"], WantedEndpoint.__dataclass_fields__
        if not change:
            wanted = WantedEndpoint(**{name: given[name] for name in columns})
            obj.pk = infrastructure.create_endpoint(wanted, password, by).pk
            return
        changes = {name: given[name] for name in form.changed_data if name in columns}
        _, cleared = infrastructure.update_endpoint(obj, changes, password, by)
        if cleared:
            self.message_user(
                request, "The stored password was for the former address, and was cleared.", messages.WARNING
            )

    def delete_model(self, request: HttpRequest, obj: Endpoint) -> None:
        infrastructure.delete_endpoint(obj, caller(request))


class HostForm(forms.ModelForm):
    def clean(self) -> None:
        cluster = self.cleaned_data.get("cluster") or (self.instance.cluster if self.instance.pk else None)
        endpoint = self.cleaned_data.get("endpoint")
        if cluster and endpoint and endpoint.kind != cluster.hypervisor:
            self.add_error(
                "endpoint", f"Cluster {cluster} is for {cluster.hypervisor}; this endpoint is {endpoint.kind}."
            )


@admin.register(Host)
class HostAdmin(ModelAdmin):
    form = HostForm
    fields = [
        "name",
        "cluster",
        "endpoint",
        "state",
        "unavailable",
        "resource_state",
        "cpus",
        "mhz",
        "memory",
        "reserved_mhz",
        "reserved_memory",
        "hypervisor_version",
    ]
    fixed = ["cluster"]
    readonly_fields = ["state", "unavailable", "reserved_mhz", "reserved_memory", "hypervisor_version"]
    list_display = ["name", "cluster", "endpoint", "state", "resource_state", "cpus", "memory", "reserved_memory"]
    list_select_related = ["cluster", "endpoint"]
    list_filter = ["state", "resource_state", "cluster"]
    search_fields = ["name", "endpoint__name", "endpoint__host"]

    def save_model(self, request: HttpRequest, obj: Host, form: HostForm, change: bool) -> None:
        by, given = caller(request), form.cleaned_data
        if not change:
            size = Size(given["cpus"], given["mhz"], given["memory"])
            obj.pk = infrastructure.add_host(given["cluster"], given["endpoint"], given["name"], size, by).pk
            return
        changed = {name: given[name] for name in form.changed_data}
        state = changed.pop("resource_state", "")
        size = Size(**{name: changed.pop(name) for name in ("cpus", "mhz", "memory") if name in changed})
        if state or size != Size():
            infrastructure.update_host(obj, size, state, by)
        obj.validate_constraints()
        obj.save(update_fields=changed)

    def delete_model(self, request: HttpRequest, obj: Host) -> None:
        infrastructure.delete_host(obj, caller(request))


@admin.register(PrimaryStorage)
class PrimaryStorageAdmin(PlaceAdmin):
    fields = ["name", "cluster", "shared"]
    fixed = ["cluster"]
    list_display = ["name", "cluster", "shared"]
    list_select_related = ["cluster"]
    list_filter = ["shared"]
    search_fields = ["name", "cluster__name"]

    def create(self, obj: PrimaryStorage, by: Caller) -> PrimaryStorage:
        return infrastructure.create_storage_pool(obj.cluster, obj.name, by, shared=obj.shared)


# Offerings and templates ------------------------------------------------------------------------


@admin.register(ServiceOffering)
class ServiceOfferingAdmin(ModelAdmin):
    note = "A service offering never changes. A deleted one lives on for as long as a VM uses it."
    fields = ["name", "display_text", "cpus", "mhz", "memory_mib"]
    list_display = ["name", "display_text", "cpus", "mhz", "memory_mib", "created_at", "removed_at"]
    list_filter = [("removed_at", admin.EmptyFieldListFilter)]
    search_fields = ["name", "display_text"]

    def has_change_permission(self, request: HttpRequest, obj: ServiceOffering | None = None) -> bool:
        return False

    def get_deleted_objects(self, objs, request: HttpRequest):
        """VMs do not stand in the way: the model keeps what they use."""
        return [str(offering) for offering in objs], {"service offerings": len(objs)}, set(), []

    def save_model(self, request: HttpRequest, obj: ServiceOffering, form: forms.ModelForm, change: bool) -> None:
        wanted = {name: form.cleaned_data[name] for name in self.fields}
        obj.pk = offerings.create_service_offering(**wanted, by=caller(request)).pk

    def delete_model(self, request: HttpRequest, obj: ServiceOffering) -> None:
        offerings.delete_service_offering(obj, by=caller(request))


class TemplateForm(forms.ModelForm):
    def clean(self) -> None:
        if self.instance.pk:
            return
        wanted, hypervisor = self.cleaned_data.get("format"), self.cleaned_data.get("hypervisor")
        if wanted and hypervisor and TemplateFormat(wanted).hypervisor != hypervisor:
            self.add_error("format", f"This format is for {TemplateFormat(wanted).hypervisor}.")
        boots_kernel = wanted == TemplateFormat.KERNEL
        for name in ("image", "kernel", "initrd"):
            needed = boots_kernel == (name != "image")
            if needed and not self.cleaned_data.get(name):
                self.add_error(name, "This format needs it.")
            if not needed and self.cleaned_data.get(name):
                self.add_error(name, "Only for the other kind of format; leave it empty.")


@admin.register(Template)
class TemplateAdmin(RemovedByJob):
    form = TemplateForm
    consequence = "A template that VMs are of is not deleted. What it boots stays on the hosts."
    fixed = ["account", "zone", "hypervisor", "format", "image", "size", "kernel", "initrd", "command_line"]
    fieldsets = [
        (None, {"fields": ["name", "display_text", "account", "public", "zone", "hypervisor"]}),
        ("Guest", {"fields": ["os_family", "guest_os_type", "password_enabled"]}),
        ("Config drive", {"fields": ["drive_reader", "config_drive_label", "drive_required"]}),
        (
            "What it boots",
            {
                "fields": ["format", "image", "size", "kernel", "initrd", "command_line"],
                "description": "It lies on the hosts already; a template refers to it.",
            },
        ),
    ]
    list_display = ["name", "account", "public", "zone", "hypervisor", "os_family", "password_enabled", "format"]
    list_select_related = ["account__domain", "zone"]
    list_filter = ["public", "hypervisor", "os_family", "format", "password_enabled", "drive_reader"]
    search_fields = ["name", "display_text", "guest_os_type", "image"]
    autocomplete_fields = ["account"]

    def save_model(self, request: HttpRequest, obj: Template, form: TemplateForm, change: bool) -> None:
        if change:
            changed = {name: form.cleaned_data[name] for name in form.changed_data}
            templates.update_template(obj, by=caller(request), **changed)
        else:
            templates.register_template(obj, by=caller(request))

    @staticmethod
    def submit_removal(row: Template, by: Caller) -> AsyncJob:
        return templates.delete_template(row, by)


class OfferedServiceInline(admin.TabularInline):
    model = OfferedService
    fields = ["service", "provider"]
    verbose_name_plural = "Services"
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: NetworkOffering | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: NetworkOffering | None = None) -> bool:
        return False


class NetworkOfferingForm(forms.ModelForm):
    guest_type = forms.ChoiceField(
        choices=[(kind.value, kind.label) for kind in (GuestType.SHARED, GuestType.L2)], initial=GuestType.SHARED
    )
    user_data = forms.ChoiceField(
        label="User data service",
        choices=[("", "None: an offering without services"), (Provider.CONFIG_DRIVE.value, "By ConfigDrive")],
        required=False,
        help_text="DHCP and DNS are external, so no offering has them.",
    )


@admin.register(NetworkOffering)
class NetworkOfferingAdmin(ModelAdmin):
    form = NetworkOfferingForm
    fixed = ["guest_type", "specify_vlan", "specify_ip_ranges"]
    list_display = ["name", "guest_type", "state", "promises", "specify_vlan", "specify_ip_ranges", "created_at"]
    list_filter = ["guest_type", "state"]
    search_fields = ["name", "display_text"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[NetworkOffering]:
        return super().get_queryset(request).prefetch_related("services")

    def get_fields(self, request: HttpRequest, obj: NetworkOffering | None = None) -> list[str]:
        fields = ["name", "display_text", "state", "guest_type", "specify_vlan", "specify_ip_ranges"]
        return fields if obj else [*fields, "user_data"]

    def get_inlines(self, request: HttpRequest, obj: NetworkOffering | None = None) -> list[type]:
        return [OfferedServiceInline] if obj else []

    @admin.display(description="services")
    def promises(self, offering: NetworkOffering) -> str:
        return ", ".join(str(service) for service in offering.services.all()) or "none"

    def save_model(self, request: HttpRequest, obj: NetworkOffering, form: NetworkOfferingForm, change: bool) -> None:
        if change:
            offerings.update_offering(
                obj, name=obj.name, display_text=obj.display_text, state=obj.state, by=caller(request)
            )
            return
        user_data = form.cleaned_data["user_data"]
        created = offerings.create_offering(
            name=obj.name,
            display_text=obj.display_text,
            guest_type=obj.guest_type,
            services={Service.USER_DATA.value: user_data} if user_data else {},
            specify_vlan=obj.specify_vlan,
            specify_ip_ranges=obj.specify_ip_ranges,
            enable=obj.state == AllocationState.ENABLED,
            by=caller(request),
        )
        obj.pk = created.pk

    def delete_model(self, request: HttpRequest, obj: NetworkOffering) -> None:
        offerings.delete_offering(obj, by=caller(request))


# Networks ---------------------------------------------------------------------------------------


class NetworkForm(forms.ModelForm):
    """What the service wants to know of a new network; it checks how these go together."""

    vlan = forms.IntegerField(label="VLAN", required=False, min_value=1, max_value=4094)
    netmask = forms.GenericIPAddressField(protocol="IPv4", required=False, help_text="As in 255.255.255.0.")

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if "domain" in self.fields:
            self.fields["domain"].required = False
            self.fields["domain"].help_text = "Empty: the account's."
        if "offering" in self.fields:
            self.fields["offering"].queryset = NetworkOffering.objects.filter(state=AllocationState.ENABLED)

    class Meta:
        labels = {"start_ip": "Start IP", "end_ip": "End IP"}

    def clean(self) -> None:
        given = self.cleaned_data
        if given.get("start_ip") and "end_ip" in given:
            given["end_ip"] = given["end_ip"] or given["start_ip"]
        elif given.get("end_ip"):
            self.add_error("start_ip", "The range needs its beginning too.")


@admin.register(Network)
class NetworkAdmin(RemovedByJob):
    form = NetworkForm
    consequence = "A network that NICs are on is not deleted."
    list_display = ["name", "zone", "vlan", "cidr", "gateway", "offering", "account", "acl_type"]
    list_select_related = ["zone", "offering", "account__domain"]
    list_filter = ["zone", "acl_type", "offering__guest_type"]
    search_fields = ["name", "display_text", "cidr", "vlan"]
    autocomplete_fields = ["account", "domain"]
    fixed = ["zone", "offering", "account", "acl_type", "domain", "vlan", "cidr", "gateway", "start_ip", "end_ip"]

    def get_fieldsets(self, request: HttpRequest, obj: Network | None = None):
        mask = "cidr" if obj else "netmask"
        return [
            (None, {"fields": ["name", "display_text", "zone", "offering", "vlan"]}),
            (
                "As the external DHCP server has it",
                {
                    "fields": ["gateway", mask, "start_ip", "end_ip", "network_domain"],
                    "description": "The range mirrors the server's; nothing is assigned from it. L2 may have none.",
                },
            ),
            ("Who may use it, and how", {"fields": ["account", "acl_type", "domain", "is_default"]}),
        ]

    def save_model(self, request: HttpRequest, obj: Network, form: NetworkForm, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        given = form.cleaned_data
        wanted = services.WantedNetwork(
            name=given["name"],
            display_text=given["display_text"],
            zone=given["zone"],
            offering=given["offering"],
            account=given["account"],
            acl_type=given["acl_type"],
            domain=given["domain"],
            vlan=str(given["vlan"] or ""),
            gateway=given["gateway"] or "",
            netmask=given["netmask"] or "",
            start_ip=given["start_ip"] or "",
            end_ip=given["end_ip"] or "",
            network_domain=given["network_domain"],
            is_default=given["is_default"],
        )
        obj.pk = services.create_network(wanted, by=caller(request)).pk

    @staticmethod
    def submit_removal(row: Network, by: Caller) -> AsyncJob:
        return services.delete_network(row, by)


# VMs --------------------------------------------------------------------------------------------


@admin.register(VirtualMachine)
class VirtualMachineAdmin(ReadOnlyAdmin):
    note = "VMs are deployed and changed by jobs; the actions below submit them."
    # Without `password` and `user_data`, which are the guest's alone.
    fields = [
        "name",
        "display_name",
        "group_name",
        "uuid",
        "instance_name",
        "account",
        "zone",
        "hypervisor",
        "service_offering",
        "template",
        "state",
        "state_since",
        "error_text",
        "host",
        "last_host",
        "migrating_to",
        "key_pairs",
        "drive_use",
        "needs_restart",
        "guest_seen_at",
        "created_at",
        "destroyed_at",
    ]
    list_display = ["name", "display_name", "state", "state_since", "host", "account", "zone", "error_text"]
    list_select_related = ["host", "account__domain", "zone"]
    list_filter = ["state", "hypervisor", "zone"]
    search_fields = ["name", "display_name", "uuid", "nics__mac_address", "nics__ip4_address"]
    actions = ["start", "stop", "reboot", "destroy"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[VirtualMachine]:
        return super().get_queryset(request).defer("password", "user_data")

    @admin.display(description="SSH key pairs")
    def key_pairs(self, vm: VirtualMachine) -> str:
        return ", ".join(pair["name"] for pair in vm.ssh_keys) or "none"

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("networks.change_virtualmachine")

    def has_destroy_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("networks.delete_virtualmachine")

    @admin.action(description="Start selected VMs", permissions=["operate"])
    def start(self, request: HttpRequest, queryset: QuerySet[VirtualMachine]) -> None:
        self.submit_each(request, queryset.select_related("account"), vms.start)

    @admin.action(description="Stop selected VMs", permissions=["operate"])
    def stop(self, request: HttpRequest, queryset: QuerySet[VirtualMachine]) -> None:
        self.submit_each(request, queryset.select_related("account"), vms.stop)

    @admin.action(description="Reboot selected VMs", permissions=["operate"])
    def reboot(self, request: HttpRequest, queryset: QuerySet[VirtualMachine]) -> None:
        self.submit_each(request, queryset.select_related("account"), vms.reboot)

    @admin.action(description="Destroy selected VMs", permissions=["destroy"])
    def destroy(self, request: HttpRequest, queryset: QuerySet[VirtualMachine]) -> TemplateResponse | None:
        if request.POST.get("confirmed"):
            return self.submit_each(request, queryset.select_related("account"), vms.destroy)
        return self.ask_first(
            request,
            queryset.select_related("account__domain"),
            "destroy",
            "Destroy these VMs",
            "They are stopped at once. Their config drives are erased from their hosts and their NICs leave the queue; "
            "ROOT volumes are kept for expunge.delay.",
        )


class NicForm(forms.ModelForm):
    pinned_address = forms.GenericIPAddressField(
        label="IPv4 address, set by hand",
        protocol="IPv4",
        required=False,
        help_text="For a guest whose address nobody can tell. It is never overwritten. Empty: the address is learned.",
    )
    although_held = forms.BooleanField(
        label="Although another NIC of the network has it",
        required=False,
        help_text="Otherwise that is refused.",
    )

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.address_state == AddressState.PINNED:
            self.initial["pinned_address"] = self.instance.ip4_address


@admin.register(Nic)
class NicAdmin(ModelAdmin):
    form = NicForm
    readonly_fields = [
        "vm",
        "network",
        "device_id",
        "is_default",
        "mac_address",
        "ip4_address",
        "ip6_address",
        "others",
        "address_state",
        "address_source",
        "address_seen_at",
        "plugged",
        "uuid",
    ]
    fieldsets = [
        (None, {"fields": ["vm", "network", "device_id", "is_default", "mac_address", "plugged", "uuid"]}),
        (
            "Addresses",
            {
                "fields": [
                    "ip4_address",
                    "ip6_address",
                    "others",
                    "address_state",
                    "address_source",
                    "address_seen_at",
                ]
            },
        ),
        ("By hand", {"fields": ["pinned_address", "although_held"]}),
    ]
    list_display = ["mac_address", "vm", "network", "ip4_address", "address_state", "address_source", "address_seen_at"]
    list_select_related = ["vm", "network"]
    list_filter = ["address_state", filter_by_known("source", "address_source", lambda: list(Source)), "is_default"]
    search_fields = ["mac_address", "ip4_address", "ip6_address", "vm__name", "network__name"]

    @admin.display(description="Other addresses")
    def others(self, nic: Nic) -> str:
        return ", ".join(nic.secondary_addresses) or "none"

    def has_add_permission(self, request: HttpRequest, obj: Nic | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Nic | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Nic, form: NicForm, change: bool) -> None:
        given = form.cleaned_data
        nics.pin(obj, given["pinned_address"] or None, caller(request), although_held=given["although_held"])


@admin.register(NicSecondaryIp)
class NicSecondaryIpAdmin(ReadOnlyAdmin):
    note = "What users have set up in their guests and registered by addIpToNic. Nothing is assigned by it."
    fields = ["address", "nic", "network", "created_at", "uuid"]
    list_display = ["address", "nic", "network", "created_at"]
    list_select_related = ["nic__vm", "network"]
    search_fields = ["address", "nic__vm__name", "network__name"]


@admin.register(ResourceTag)
class ResourceTagAdmin(ReadOnlyAdmin):
    fields = ["key", "value", "vm", "network", "template", "created_at", "uuid"]
    list_display = ["key", "value", "vm", "network", "template", "created_at"]
    list_select_related = ["vm", "network", "template"]
    search_fields = ["key", "value", "vm__name", "network__name", "template__name"]


@admin.register(Volume)
class VolumeAdmin(ReadOnlyAdmin):
    fields = ["vm", "storage", "size", "state", "created_at", "uuid"]
    list_display = ["name", "vm", "storage", "size", "state", "created_at"]
    list_select_related = ["vm", "storage"]
    list_filter = ["state", "storage"]
    search_fields = ["vm__name"]


@admin.register(SshKeyPair)
class SshKeyPairAdmin(ModelAdmin):
    note = "A key never changes under its name: VMs have copies of it."
    fields = ["name", "account", "public_key"]
    list_display = ["name", "account", "fingerprint"]
    list_select_related = ["account__domain"]
    search_fields = ["name", "account__name", "fingerprint"]
    autocomplete_fields = ["account"]

    def has_change_permission(self, request: HttpRequest, obj: SshKeyPair | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: SshKeyPair, form: forms.ModelForm, change: bool) -> None:
        given = form.cleaned_data
        obj.pk = keys.register(given["name"], given["public_key"], given["account"], caller(request)).pk

    def delete_model(self, request: HttpRequest, obj: SshKeyPair) -> None:
        keys.delete(obj.name, obj.account, caller(request))
