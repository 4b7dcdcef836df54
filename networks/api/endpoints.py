"""Endpoints: where hypervisors are reached. A root admin's alone; a password goes in and never comes out."""

from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.answers import Answer, Moment
from extdhcp_site.api.owners import ListParams
from extdhcp_site.api.parameters import Choice, Int, ObjectField, Params, Text, Values, visible
from extdhcp_site.api.registry import ROOT_ADMIN, AsyncCommand, Command, ListCommand, Success, command
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.api.fields import computed, flag, number, text
from networks.api.infrastructure import by_id, containing, given, matching
from networks.checks import Check
from networks.hypervisors.base import DiskAccess, Transport
from networks.hypervisors.tls import Certificate
from networks.models import Endpoint, HypervisorType
from networks.services import endpoint_checks, infrastructure
from networks.services.endpoint_checks import Trial

PASSED = {True: "yes", False: "no", None: "unknown"}
DISK_ACCESS = {"never": DiskAccess.NONE, "local": DiskAccess.LOCAL, "ssh": DiskAccess.SSH}


def without_secrets(endpoints: QuerySet[Endpoint]) -> QuerySet[Endpoint]:
    """With `has_password`, and without the password."""
    stored = ExpressionWrapper(Q(password__isnull=False), output_field=BooleanField())
    return endpoints.defer("password").annotate(has_password=stored)


class EndpointAnswer(Answer):
    id = text("uuid", "the endpoint's id")
    name = text("name", "the endpoint's name")
    hypervisor = text("kind", "KVM, XenServer or VMware")
    transport = text("transport", "local, tls, tcp, ssh or test")
    host = text("host", "its host's name or address; absent for one on this server")
    port = number("port", "its port; absent for the transport's own")
    username = text("username", "the user who logs in there")
    haspassword = flag("has_password", "true if a password is stored; it is never shown")
    cacertificates = text("ca_certificates", "who signs its certificate, in PEM")
    fingerprint = text("fingerprint", "the SHA-256 of its certificate, where that is what is trusted")
    diskaccess = computed("never, local or ssh: from where its guests' disks are read")
    lastok = Moment(source="last_ok_at", help_text="when it answered last")
    lasterror = text("last_error", "why it does not answer; absent while it does")
    upsince = Moment(source="up_since", help_text="since when it has answered, but for single failures")
    failures = number("failures", "how often in a row it has not answered")
    retryat = Moment(source="retry_at", help_text="until when it is left alone")
    stuckcalls = number("stuck_calls", "calls to it that were given up and do not come back")

    def get_diskaccess(self, endpoint: Endpoint) -> str:
        return endpoint.disk_access or "never"


ENDPOINT = ("endpoint", EndpointAnswer)


class ListEndpointsParams(ListParams):
    id = ObjectField("The endpoint's id.", visible(Endpoint))
    name = Text("The endpoint's name.")
    hypervisor = Choice("Only endpoints of this hypervisor.", HypervisorType.values)


@command(since="1.2", roles=ROOT_ADMIN)
class ListEndpoints(ListCommand):
    """List the endpoints: hypervisors' APIs, and whether they answer."""

    params = ListEndpointsParams
    answer = ENDPOINT

    def rows(self, caller: Caller, params: Values) -> QuerySet[Endpoint]:
        asked = by_id(params) & containing(params, "name", "host") & matching(params, name="name", hypervisor="kind")
        return without_secrets(Endpoint.objects.filter(asked))


class AddressParams(Params):
    """Mixed into what says where a hypervisor is. Fields, and no URI: one could run programs on this server."""

    hypervisor = Choice("KVM, XenServer or VMware.", HypervisorType.values)
    transport = Choice(
        "tls for XenServer and VMware. KVM: tls and tcp to libvirtd, ssh, or local for this server.",
        [transport.value for transport in Transport],
    )
    host = Text("Its name or address; absent for local.", max_length=253)
    port = Int("Its port; absent: the transport's own.", least=1, most=65535)
    username = Text("Who logs in there.", max_length=64)
    password = Text("Their password. It is stored sealed and never shown.", max_length=1024)
    cacertificates = Text(
        "XenServer and VMware: who signs the certificate, in PEM; absent: whom this server trusts.",
        multiline=True,
        max_length=65536,
        max_in_url=4096,
    )
    fingerprint = Text("XenServer and VMware: the SHA-256 of the certificate itself, instead of a CA.", max_length=95)


class EndpointParams(AddressParams):
    diskaccess = Choice(
        "Whether leases are looked for on guests' disks: never (the default), local or ssh.", tuple(DISK_ACCESS)
    )


_COLUMNS = {
    "hypervisor": "kind",
    "transport": "transport",
    "host": "host",
    "port": "port",
    "username": "username",
    "cacertificates": "ca_certificates",
    "fingerprint": "fingerprint",
}


def _columns(params: Values) -> Values:
    columns = given(params, **_COLUMNS)
    if "port" in columns:
        columns["port"] = columns["port"] or None
    if params.get("name"):
        columns["name"] = params["name"]
    if params.get("diskaccess"):
        columns["disk_access"] = DISK_ACCESS[params["diskaccess"]].value
    return columns


class CreateEndpointParams(EndpointParams):
    name = Text("The endpoint's name.", required=True, max_length=100)
    hypervisor = Choice("KVM, XenServer or VMware.", HypervisorType.values, required=True)


def _wanted(params: Values, name: str) -> infrastructure.WantedEndpoint:
    columns = {"kind": HypervisorType.KVM.value, "transport": Transport.TLS.value, **_columns(params), "name": name}
    return infrastructure.WantedEndpoint(**columns)


@command(since="1.2", roles=ROOT_ADMIN)
class CreateEndpoint(Command):
    """Create an endpoint: where a hypervisor is reached. Nothing is sent to it; tryEndpoint does that."""

    params = CreateEndpointParams
    answer = ENDPOINT

    def run(self, caller: Caller, params: Values) -> Endpoint:
        made = infrastructure.create_endpoint(_wanted(params, params["name"]), params["password"] or "", caller)
        return without_secrets(Endpoint.objects).get(pk=made.pk)


class PortOrNone(Int):
    """Empty is 0, which is no port."""

    nothing = ()

    def to_internal_value(self, data: Any) -> int:
        return 0 if data == "" else super().to_internal_value(data)


class UpdateEndpointParams(EndpointParams):
    id = ObjectField("The endpoint's id.", visible(Endpoint), required=True)
    name = Text("A new name.", max_length=100)
    # Empty takes away what was there.
    host = Text("Its name or address; empty for local.", max_length=253, allow_blank=True)
    port = PortOrNone("Its port; empty: the transport's own.", least=1, most=65535)
    username = Text("Who logs in there.", max_length=64, allow_blank=True)
    cacertificates = Text(
        "Who signs the certificate, in PEM; empty: whom this server trusts.",
        multiline=True,
        max_length=65536,
        max_in_url=4096,
        allow_blank=True,
    )
    fingerprint = Text("The SHA-256 of the certificate; empty: none.", max_length=95, allow_blank=True)


@command(since="1.2", roles=ROOT_ADMIN)
class UpdateEndpoint(Command):
    """Change an endpoint. A new address, user or trust clears the stored password, unless one comes with it."""

    params = UpdateEndpointParams
    answer = ENDPOINT

    def run(self, caller: Caller, params: Values) -> Endpoint:
        infrastructure.update_endpoint(params["id"], _columns(params), params["password"] or "", caller)
        return without_secrets(Endpoint.objects).get(pk=params["id"].pk)


class DeleteEndpointParams(Params):
    id = ObjectField("The endpoint's id.", visible(Endpoint), required=True)


@command(since="1.2", roles=ROOT_ADMIN)
class DeleteEndpoint(Command):
    """Delete an endpoint that has no host."""

    params = DeleteEndpointParams
    answer = Success

    def run(self, caller: Caller, params: Values) -> None:
        infrastructure.delete_endpoint(params["id"], caller)


# Finding out --------------------------------------------------------------------------------------------


class CheckAnswer(Answer):
    name = text("name", "what was looked at")
    passed = computed("yes, no, or unknown where the question could not be asked")
    text = text("text", "what was found, and what to do")

    def get_passed(self, check: Check) -> str:
        return PASSED[check.passed]


class CapabilityAnswer(Answer):
    name = computed("what a hypervisor may be able to do")
    supported = computed("true if it can")

    def get_name(self, capability: tuple[str, bool]) -> str:
        return capability[0]

    def get_supported(self, capability: tuple[str, bool]) -> bool:
        return capability[1]


class CertificateAnswer(Answer):
    fingerprint = text("fingerprint", "its SHA-256, for the endpoint's field fingerprint")
    subject = text("subject", "whose it says it is")
    issuer = text("issuer", "who it says has signed it")
    names = computed("the names and addresses that it is for")
    notbefore = Moment(source="not_before", help_text="from when it is valid")
    notafter = Moment(source="not_after", help_text="until when it is valid")
    selfsigned = flag("self_signed", "true if nobody but itself says so")

    def get_names(self, certificate: Certificate) -> list[str]:
        return list(certificate.names[:50])


class TrialAnswer(Answer):
    connected = computed("true if it let us in")
    hostname = text("facts.hostname", "what it calls itself")
    version = text("facts.version", "its version")
    cpunumber = number("facts.cpus", "CPUs, of a pool those of all hosts")
    cpuspeed = number("facts.mhz", "MHz of each CPU")
    memorytotal = number("facts.memory", "bytes of memory, of a pool that of all hosts")
    certificate = CertificateAnswer(help_text="the certificate that it shows, unproven: compare its fingerprint")
    check = CheckAnswer(source="checks", many=True, help_text="what was asked, and the answers")
    capability = CapabilityAnswer(
        source="capabilities", many=True, help_text="what this kind of hypervisor can do here"
    )

    def get_connected(self, trial: Trial) -> bool:
        return trial.facts is not None


class TryEndpointParams(AddressParams):
    id = ObjectField("An endpoint that is stored; then nothing else is given.", visible(Endpoint))

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        if "id" in values and len(values) > 1:
            # What is stored may not be sent to where somebody types.
            raise InvalidParameter("With id nothing else is given: an endpoint is tried as it is stored.")
        if "id" not in values and "hypervisor" not in values:
            raise InvalidParameter("hypervisor is needed: KVM, XenServer or VMware.")
        return values


@command(since="1.2", roles=ROOT_ADMIN)
class TryEndpoint(Command):
    """Connect to an endpoint, stored or only typed, and tell what it shows and lets do, within 15 seconds."""

    params = TryEndpointParams
    answer = ("endpointtrial", TrialAnswer)

    def run(self, caller: Caller, params: Values) -> Trial:
        endpoint = params["id"] or infrastructure.unsaved(_wanted(params, ""), params["password"] or "")
        return endpoint_checks.try_endpoint(endpoint.kind, endpoint.address)


class CheckEndpointParams(Params):
    id = ObjectField("The endpoint's id.", visible(Endpoint), required=True)


@command(since="1.2", roles=ROOT_ADMIN)
class CheckEndpoint(AsyncCommand):
    """Ask an endpoint for all that a deploy will need, host by host. The job's result has the answers as `check`."""

    params = CheckEndpointParams
    answer = ENDPOINT

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return endpoint_checks.submit_checks(params["id"], caller)


@jobs.renders_job("checkEndpoint")
def shown_as_result(job: AsyncJob, caller: Caller) -> dict[str, Any] | None:
    endpoint = without_secrets(Endpoint.objects.filter(uuid=job.instance_uuid)).first()
    return {"endpoint": EndpointAnswer(endpoint, context={"caller": caller}).data} if endpoint else None
