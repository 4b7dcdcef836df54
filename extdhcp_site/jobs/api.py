"""Polling for what an asynchronous command came to, and the list of such jobs."""

from typing import Any

from django.db.models import Q, QuerySet
from rest_framework import serializers

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import resources
from extdhcp_site.api.answers import Answer, Constant, IdField, Moment
from extdhcp_site.api.owners import OwnedListParams, ownership
from extdhcp_site.api.parameters import Date, MissingParameter, ObjectField, Params, Text, Uuid, Values
from extdhcp_site.api.registry import EVERYBODY, Command, ListCommand, command
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.jobs import services
from extdhcp_site.jobs.models import AsyncJob


def _jobs(caller: Caller) -> QuerySet[AsyncJob]:
    return AsyncJob.objects.visible_to(caller).select_related("account__domain", "user")


class JobResult(serializers.SerializerMethodField):
    """What an ended job's command declares that it answers."""


class ListedJobAnswer(Answer):
    """A job without its result, which holds a whole object and, once, a password."""

    jobid = IdField("The job.")
    cmd = serializers.CharField(source="command", help_text="The command that submitted it.")
    jobstatus = serializers.IntegerField(source="status", help_text="0 pending, 1 done, 2 failed.")
    jobprocstatus = Constant(0, "Always 0.")
    jobresultcode = serializers.SerializerMethodField(help_text="0, or the error code of a failed job.")
    jobresulttype = Constant("object", "Always object: what jobresult holds.")
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
    progress = serializers.SerializerMethodField(help_text="What its worker said last of how far it is. Our own.")

    def get_jobresultcode(self, job: AsyncJob) -> int:
        return job.error_code or 0

    def get_progress(self, job: AsyncJob) -> str | None:
        return (self.caller and services.progress(job, self.caller)) or None


class JobAnswer(ListedJobAnswer):
    """Every client's polling loop reads these: numbers are numbers, and an ended job has a result."""

    jobresult = JobResult(help_text="The object as it is now, or why the job failed.")

    def get_jobresult(self, job: AsyncJob) -> dict[str, Any] | None:
        return services.result(job, self.caller)


class QueryAsyncJobResultParams(Params):
    jobid = ObjectField("The job.", _jobs)
    resourceid = Uuid("Instead of jobid, with resourcetype: the object whose pending, or else latest, job is meant.")
    resourcetype = Text("With resourceid: the object's kind, as in jobinstancetype.")

    def validate(self, values: Values) -> Values:
        if "jobid" not in values and not {"resourceid", "resourcetype"} <= values.keys():
            raise MissingParameter(
                "Unable to execute API command queryasyncjobresult due to missing parameter jobid "
                "(or resourceid and resourcetype)"
            )
        return values


@command(since="1.0", roles=EVERYBODY)
class QueryAsyncJobResult(Command):
    """Show how far a job has come, and its result once it has ended."""

    params = QueryAsyncJobResultParams
    answer = JobAnswer

    def run(self, caller: Caller, params: Values) -> AsyncJob:
        if params["jobid"]:
            return params["jobid"]
        kind, uuid = params["resourcetype"], params["resourceid"]
        job = _jobs(caller).about(kind, uuid).first()
        if job is None:
            raise InvalidParameter(f"There is no job for {kind} {uuid}, or no such object.")
        return job


class ListAsyncJobsParams(OwnedListParams):
    startdate = Date("Shows none submitted before this day, or moment as yyyy-MM-dd HH:mm:ss (UTC).")
    resourceid = Uuid("Shows only the jobs of this object, which may be gone.")
    resourcetype = Text("Shows only the jobs of objects of this kind, as in jobinstancetype.")


@command(since="1.1", roles=EVERYBODY)
class ListAsyncJobs(ListCommand):
    """List jobs, pending and ended, the latest first. Their results are for queryAsyncJobResult."""

    params = ListAsyncJobsParams
    answer = ("asyncjobs", ListedJobAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[AsyncJob]:
        exact = {
            "created_at__gte": params["startdate"],
            "instance_uuid": params["resourceid"],
            "instance_type__iexact": params["resourcetype"],
            "command__icontains": params["keyword"],
        }
        asked = Q(**{column: value for column, value in exact.items() if value is not None})
        return _jobs(caller).filter(ownership(caller, params), asked)


class JobViewSet(resources.VisibleViewSet):
    """Jobs, pending and ended, the latest first; one by its id comes with its result."""

    queryset = AsyncJob.objects.select_related("account__domain", "user")
    filterset_fields = ["status", "command", "instance_type", "instance_uuid"]

    def get_serializer_class(self) -> type[Answer]:
        return JobAnswer if self.detail else ListedJobAnswer


resources.register("jobs", JobViewSet)
