"""How events are shown."""

from rest_framework import serializers

from extdhcp_site.api.answers import Answer, IdField, Moment
from extdhcp_site.events.models import Event


class EventAnswer(Answer):
    id = IdField("The event.")
    type = serializers.CharField(help_text="What kind of thing happened.")
    level = serializers.CharField(help_text="INFO, WARN or ERROR.")
    state = serializers.CharField(help_text="Created, or Scheduled, Started, Completed for a job's.")
    description = serializers.SerializerMethodField(help_text="What happened.")
    created = Moment(source="created_at", help_text="When.")
    username = serializers.CharField(help_text="Who did it; system for the server itself.")
    account = serializers.CharField(source="account.name", help_text="Whom it concerns.")
    domainid = IdField("That account's domain.", source="account.domain.uuid")
    domain = serializers.CharField(source="account.domain.name", help_text="That domain's name.")
    domainpath = serializers.CharField(source="account.domain.__str__", help_text="The way to the domain from ROOT.")
    parentid = IdField("The event that began what this one goes on with.", source="parent_uuid")
    resourcetype = serializers.CharField(source="resource_type", help_text="What kind of object it is about.")
    resourceid = IdField("The object it is about.", source="resource_uuid")
    resourcename = serializers.CharField(source="resource_name", help_text="That object's name at the time.")
    archived = serializers.BooleanField(help_text="Whether somebody put it away.")

    def get_description(self, event: Event) -> str:
        return event.text_for(self.caller)
