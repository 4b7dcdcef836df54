"""Polling for what an asynchronous command came to."""

from typing import Any

from rest_framework import serializers

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.answers import Answer, Constant, IdField, Moment
from extdhcp_site.api.parameters import ObjectField, Params, Values
from extdhcp_site.api.registry import EVERYBODY, Command, command
from extdhcp_site.jobs import services
from extdhcp_site.jobs.models import AsyncJob


def _jobs(caller: Caller):
    return AsyncJob.objects.visible_to(caller).select_related("account__domain", "user")


class JobAnswer(Answer):
    """Every client's polling loop reads these: numbers are numbers, and an ended job has a result."""

    jobid = IdField("The job.")
    cmd = serializers.CharField(source="command", help_text="The command that submitted it.")
    jobstatus = serializers.IntegerField(source="status", help_text="0 pending, 1 done, 2 failed.")
    jobprocstatus = Constant(0, "Always 0.")
    jobresultcode = serializers.SerializerMethodField(help_text="0, or the error code of a failed job.")
    jobresulttype = Constant("object", "Always object: what jobresult holds.")
    jobresult = serializers.SerializerMethodField(help_text="The object as it is now, or why the job failed.")
    jobinstancetype = serializers.CharField(source="instance_type", help_text="What kind of object it works on.")
    jobinstanceid = IdField("The object it works on.", source="instance_uuid")
    accountid = IdField("The owner of the object.", source="account.uuid")
    account = serializers.CharField(source="account.name", help_text="The owner's name.")
    domainid = IdField("The owner's domain.", source="account.domain.uuid")
    domain = serializers.CharField(source="account.domain.name", help_text="The owner's domain's name.")
    domainpath = serializers.CharField(source="account.domain.__str__", help_text="The way to the domain from ROOT.")
    userid = IdField("Who submitted it.", source="user.uuid")
    created = Moment(source="created_at", help_text="When it was submitted.")
    completed = Moment(source="completed_at", help_text="When it ended.")

    def get_jobresultcode(self, job: AsyncJob) -> int:
        return job.error_code or 0

    def get_jobresult(self, job: AsyncJob) -> dict[str, Any] | None:
        return services.result(job, self.caller)


class QueryAsyncJobResultParams(Params):
    jobid = ObjectField("The job.", _jobs, required=True)


@command(since="1.0", roles=EVERYBODY)
class QueryAsyncJobResult(Command):
    """Show how far a job has come, and its result once it has ended."""

    params = QueryAsyncJobResultParams
    answer = JobAnswer

    def run(self, caller: Caller, params: Values) -> AsyncJob:
        return params["jobid"]
