"""Tags: a key and a value that users put on what is theirs."""

from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Q
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Caller
from extdhcp_site.models import UuidModel
from networks.models.networks import Network
from networks.models.offerings import Template
from networks.models.vms import VirtualMachine

# What may have tags, by CloudStack's word for it: the column that leads to it.
TAGGED: dict[str, str] = {"UserVm": "vm", "Network": "network", "Template": "template"}


class ResourceTagQuerySet(models.QuerySet["ResourceTag"]):
    def visible_to(self, caller: Caller) -> Self:
        """Those on objects that the caller may see, which show them as well."""
        if caller.is_root:
            return self
        seen = Q(pk=None)
        for column in TAGGED.values():
            objects = ResourceTag._meta.get_field(column).related_model._default_manager
            seen |= Q(**{f"{column}__in": objects.visible_to(caller).values("pk")})
        return self.filter(seen)

    def for_listing(self) -> Self:
        return self.select_related(*(f"{column}__account__domain" for column in TAGGED.values()))


class ResourceTag(UuidModel):
    """One tag of one object, and gone with it. It belongs to whom the object belongs to."""

    LONGEST: ClassVar = 255

    vm = models.ForeignKey(VirtualMachine, on_delete=models.CASCADE, null=True, related_name="tags")
    network = models.ForeignKey(Network, on_delete=models.CASCADE, null=True, related_name="tags")
    template = models.ForeignKey(Template, on_delete=models.CASCADE, null=True, related_name="tags")
    key = models.CharField(max_length=LONGEST)
    value = models.CharField(max_length=LONGEST, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ResourceTagQuerySet.as_manager()

    class Meta:
        ordering = ["key", "id"]
        constraints = [
            models.UniqueConstraint(fields=["vm", "key"], name="tag_once_on_vm"),
            models.UniqueConstraint(fields=["network", "key"], name="tag_once_on_network"),
            models.UniqueConstraint(fields=["template", "key"], name="tag_once_on_template"),
            models.CheckConstraint(
                condition=Q(vm__isnull=False, network=None, template=None)
                | Q(vm=None, network__isnull=False, template=None)
                | Q(vm=None, network=None, template__isnull=False),
                name="tag_is_on_one_object",
            ),
        ]
        indexes = [models.Index(fields=["key"])]

    def __str__(self) -> str:
        return f"{self.key}={self.value}"

    @property
    def resource_type(self) -> str:
        return next(word for word, column in TAGGED.items() if getattr(self, f"{column}_id") is not None)

    @property
    def resource(self) -> Any:
        return getattr(self, TAGGED[self.resource_type])

    @property
    def account(self) -> Account:
        return self.resource.account
