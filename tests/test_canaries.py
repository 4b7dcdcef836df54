"""No secret shows where it does not belong: one of each kind is planted, everything is run, every sink is searched.

Where a secret may be: a VM's password in its job's result as the job's own caller reads it, in what a guest agent
is told, and with the user data in the ISO that the hypervisor is handed; user data in getVirtualMachineUserData's
answer to its owner; a key's secret and token in what create_api_key prints; a lease token in what create_lease_token
prints or the admin answers; an SSH key pair's private half in the one answer that makes it.
"""

import base64
import contextlib
import hashlib
import html
import io
import json
import logging
import os
import secrets
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote, quote_plus, urlencode

import libvirt
import pytest
from allauth.mfa.totp.internal.auth import TOTP
from cryptography.fernet import Fernet
from django.apps import apps
from django.conf import settings as django_settings
from django.contrib import admin
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_q.conf import Conf
from django_q.models import OrmQ
from django_q.signing import SignedPackage

from configdrive import upkeep
from configdrive.guest_scripts import STATUS_FILE
from configdrive.models import ConfigDrive, Leftover
from extdhcp_site import logs
from extdhcp_site.accounts.models import Account, NewApiKey, Role, User
from extdhcp_site.alerts import services as alerts
from extdhcp_site.alerts.mail import send_due
from extdhcp_site.alerts.models import Alert, Kind
from extdhcp_site.api import registry, resources
from extdhcp_site.configuration.models import Setting
from extdhcp_site.console import pages as console
from extdhcp_site.encryption import EncryptedTextField
from extdhcp_site.events import models as events
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from networks.hypervisors.base import AgentAbsent, Busy, HypervisorError, Media, StorageProblem
from networks.hypervisors.kvm_connection import translate
from networks.models import Endpoint, Host, Network, Nic, SshKeyPair, Template, VirtualMachine, VmState
from networks.services import lifecycle
from tests.api.client import ENDPOINT, Signer, send
from tests.factories import (
    GIB,
    make_account,
    make_api_key,
    make_cluster,
    make_domain,
    make_endpoint,
    make_host,
    make_network,
    make_running_vm,
    make_service_offering,
    make_template,
    make_user,
    make_vm,
)
from tests.fakes import FakeHypervisor, hypervisors

# Threads of fetch_ips and another process must see what was written.
pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)

ROOT = Path(__file__).resolve().parent.parent
# A command that no flow can call, with the reason.
NOT_EXERCISED: dict[str, str] = {}


# The searcher ------------------------------------------------------------------------------------


def forms(secret: str) -> set[str]:
    """The spellings in which a secret may stand in a text, in lower case: a sink is searched without regard to it."""
    raw = secret.encode()
    spellings = {
        secret,
        raw.hex(),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        html.escape(secret),
        *(quote(secret, safe=safe) for safe in ("", "/", "*~")),
        quote_plus(secret),
        quote(quote(secret, safe=""), safe=""),
        *(spelt for offset in range(3) for spelt in _base64(raw, offset)),
    }
    return {spelling.lower() for spelling in spellings}


def _base64(raw: bytes, offset: int) -> tuple[str, str]:
    """`raw` as it stands in the base64 of something longer: only the characters that it decides alone."""
    text = base64.b64encode(b"\0" * offset + raw).decode().rstrip("=")
    first = -(-offset * 8 // 6)
    last = (offset + len(raw)) * 8 // 6
    return text[first:last], text[first:last].translate(str.maketrans("+/", "-_"))


@dataclass
class Sinks:
    """Everything that somebody could read, by the kind of place that it stands in."""

    texts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, sink: str, content: object) -> None:
        text = content.decode("latin-1") if isinstance(content, bytes) else str(content)
        self.texts[sink].append(text)

    def leaks(self, planted: dict[str, str]) -> list[str]:
        """One line for each kind of secret in each sink, with where it stands."""
        found = {}
        for sink, texts in self.texts.items():
            everything = "\n".join(texts).lower()
            for kind, secret in planted.items():
                for spelling in forms(secret):
                    at = everything.find(spelling)
                    if at >= 0:
                        # What is around it tells where it came from.
                        found[kind, sink] = everything[max(at - 200, 0) : at + 120]
        return [f"{kind} in {sink}: …{around}…" for (kind, sink), around in found.items()]

    def with_a_leak(self, planted: dict[str, str]) -> set[str]:
        return {leak.partition(" in ")[2].partition(":")[0] for leak in self.leaks(planted)}


# The sinks ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def logs_go_to(sinks: Sinks) -> Iterator[None]:
    """Every logger's every level, SQL with its parameters included, as the server's log would have it."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            sinks.add("logs", self.format(record))
            # Another deployment's formatter may print whole tracebacks and arguments.
            sinks.add("logs", record.getMessage())

    collector = Collector(logging.DEBUG)
    collector.setFormatter(logs.formatter())
    root = logging.getLogger()
    loggers = [root, *(item for item in root.manager.loggerDict.values() if isinstance(item, logging.Logger))]
    before = [(logger, logger.level, logger.propagate, logger.disabled) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.propagate, logger.disabled = True, False
    root.addHandler(collector)
    connection.force_debug_cursor = True
    try:
        yield
    finally:
        connection.force_debug_cursor = False
        root.removeHandler(collector)
        for logger, level, propagate, disabled in before:
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled


class Web:
    """Every answer goes to the sinks, except while `private` is open: then somebody reads what is theirs."""

    def __init__(self, sinks: Sinks) -> None:
        self.sinks, self.is_private, self.answered = sinks, False, 0

    @contextlib.contextmanager
    def private(self) -> Iterator[None]:
        self.is_private = True
        try:
            yield
        finally:
            self.is_private = False

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        plain = Client.request

        def request(client: Client, **asked: Any):
            answer = plain(client, **asked)
            self.answered += 1
            self.sinks.add("headers", f"{asked.get('PATH_INFO')} {answer.status_code} {dict(answer.headers)}")
            if not self.is_private:
                body = b"".join(answer.streaming_content) if answer.streaming else answer.content
                self.sinks.add("answers", f"{asked.get('PATH_INFO')}: {body.decode('latin-1')}")
            return answer

        with mock.patch.object(Client, "request", request):
            yield


def look_at_queue(sinks: Sinks) -> None:
    for payload in OrmQ.objects.values_list("payload", flat=True):
        sinks.add("queue", payload)
        sinks.add("queue", SignedPackage.loads(payload))


def look_at_rows(sinks: Sinks) -> None:
    for model, sink in ((events.Event, "events"), (AsyncJob, "jobs")):
        for row in model.objects.values():
            sinks.add(sink, row)
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        for table in tables:
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608 - our own tables
            sinks.add("database", f"{table}: {cursor.fetchall()}")
    if connection.vendor == "sqlite":
        name = connection.settings_dict["NAME"]
        with contextlib.closing(sqlite3.connect(name)) as database:
            sinks.add("database", "\n".join(database.iterdump()))
        # With the pages that are free again, and the journal.
        for path in Path(name).parent.glob(f"{Path(name).name}*"):
            sinks.add("database", path.read_bytes())


def look_at_lists(sinks: Sinks, web: Web, people: dict[str, Signer]) -> set[str]:
    """Every list, as each role sees it; every job, as everybody but its caller sees it. Gives the lists' names."""
    called = set()
    vms = list(VirtualMachine.objects.values_list("uuid", flat=True))
    with web.recorded():
        for signer in people.values():
            for command in registry.commands():
                if not command.name.startswith("list") or signer.caller.role not in command.roles:
                    continue
                called.add(command.name)
                for asked in [{"virtualmachineid": vm} for vm in vms] if command.name == "listNics" else [{}]:
                    sinks.add("lists", signer.raw(command=command.name, listall="true", **asked).content)
                    sinks.add("lists", signer.call(command.name, listall="true", **asked).body)
            for uuid in AsyncJob.objects.exclude(user=signer.user).values_list("uuid", flat=True):
                sinks.add("jobs", signer.call("queryAsyncJobResult", jobid=uuid).body)
            for resource in resources.prefixes():
                answer = Client().get(f"/api/v1/{resource}/", headers={"authorization": f"Bearer {signer.keys.token}"})
                is_there = signer.caller.role in resources.places[resource].view.roles
                assert answer.status_code == (200 if is_there else 404)
                sinks.add("lists", answer.content)
    return called


def look_at_admin(sinks: Sinks, web: Web, user: User) -> None:
    """Each changelist, and the pages of its newest rows."""
    client = Client()
    client.force_login(user)
    with web.recorded():
        for model in admin.site._registry:
            name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
            pages = [reverse(f"{name}_changelist")]
            if model is not Setting:
                newest = model._default_manager.order_by("-pk").values_list("pk", flat=True)[:5]
                pages += [reverse(f"{name}_{page}", args=[pk]) for pk in newest for page in ("change", "history")]
            for page in pages:
                answer = client.get(page)
                # 302: a row that was removed is not found.
                assert answer.status_code in (200, 302, 403), page
                sinks.add("admin", answer.content)
        for page in ("/", "/admin/", "/healthz", "/readyz", "/metrics", "/api/schema/", "/api/docs/"):
            sinks.add("admin", client.get(page).content)


def look_at_console(sinks: Sinks, web: Web, *signers: Signer) -> None:
    """Every page, about each object of its kind, as whoever has no right to what is secret there."""
    about = {it.name: it for it in console.registered()}
    models = {
        "vms": VirtualMachine,
        "nics": Nic,
        "networks": Network,
        "jobs": AsyncJob,
        "events": events.Event,
        "accounts": Account,
        "users": User,
        "endpoints": Endpoint,
        "hosts": Host,
    }
    for signer in signers:
        client = Client()
        client.force_login(signer.user)
        with web.recorded():
            for it in about.values():
                kind = it.route.split("/")[0]
                rows = models[kind].objects.order_by("-pk")[:3] if "<uuid:" in it.route else [None]
                for row in rows:
                    route = it.route.replace("<uuid:uuid>", str(row.uuid) if row else "")
                    route = route.replace("<slug:what>", "password").replace("<slug:kind>", "zone")
                    answer = client.get(f"/{route}", {"export": "csv"} if row is None and kind in models else {})
                    assert answer.status_code in (200, 302, 400, 404), route
                    sinks.add("console", answer.getvalue())


def look_at_process(sinks: Sinks, tmp_path: Path, *words: str) -> None:
    """A manage.py of its own on this database: its arguments and environment, as `ps e` shows them, and its output."""
    for name, secret in (
        ("secret_key", django_settings.SECRET_KEY),
        ("keys", ",".join(django_settings.FIELD_ENCRYPTION_KEYS)),
    ):
        (tmp_path / name).write_text(secret)
        (tmp_path / name).chmod(0o600)
    inherited = {name: value for name, value in os.environ.items() if "SECRET" not in name and "KEYS" not in name}
    environment = {
        **inherited,
        "DJANGO_SETTINGS_MODULE": "extdhcp_site.settings",
        "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
        "SECRET_KEY_FILE": str(tmp_path / "secret_key"),
        "FIELD_ENCRYPTION_KEYS_FILE": str(tmp_path / "keys"),
        "VAR_DIR": str(tmp_path / "var"),
        "EXTDHCP_ENV_FILE": os.devnull,
        "LOG_LEVEL": "DEBUG",
    }
    command = [sys.executable, "manage.py", *words]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while process.poll() is None:
        for what in ("cmdline", "environ", "comm"):
            with contextlib.suppress(OSError):
                sinks.add("processes", Path(f"/proc/{process.pid}/{what}").read_bytes())
        time.sleep(0.02)
    out, err = process.communicate()
    assert process.returncode == 0, err
    sinks.add("commands", out + err)


def run_command(sinks: Sinks, *words: object, shows_secrets: bool = False, **options: object) -> str:
    """A command in this process; its stdout is no sink where it shows a secret on purpose."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            call_command(*map(str, words), stdout=out, stderr=err, **options)
        except CommandError as error:
            err.write(str(error))
        except SystemExit:
            pass  # its status says that something is missing
    sinks.add("commands", err.getvalue())
    if not shows_secrets:
        sinks.add("commands", out.getvalue())
    return out.getvalue()


SINKS = {
    *("logs", "answers", "headers", "queue", "events", "jobs"),
    *("database", "lists", "admin", "console", "commands", "processes"),
}


# The flows ---------------------------------------------------------------------------------------


def library_error(words: str) -> HypervisorError:
    """What the KVM driver makes of an error of libvirt's that says too much: the cause goes along with it."""
    theirs = libvirt.libvirtError(f"cannot connect to qemu+tcp://root:{words}@one.example/system")
    ours = translate(theirs)
    ours.__cause__ = theirs
    return ours


class Flows:
    """A cloud with two hosts, a person of each role, and what they do; `planted` is what nobody may see."""

    def __init__(self, sinks: Sinks, web: Web) -> None:
        self.sinks, self.web = sinks, web
        self.called: set[str] = set()
        self.failed = 0
        self.isos: list[bytes] = []
        token = secrets.token_hex
        self.password = f"Vm{token(8)}\"<&%+/\\' 7"
        self.user_data = f"#cloud-config\nchpasswd: ud{token(12)}\n"
        self.endpoint_password = f'Ep{token(8)}"<&%+/:@'
        self.log_in_password = f"Li{token(8)}"
        self.planted = {
            "VM password, given": self.password,
            "VM password, its plain part": self.password[:18],
            "user data": self.user_data.partition("chpasswd: ")[2].strip(),
            "endpoint password": self.endpoint_password,
            "endpoint password, its plain part": self.endpoint_password[:18],
            "log-in password": self.log_in_password,
            "SECRET_KEY": django_settings.SECRET_KEY,
            "queue key": Conf.SECRET_KEY,
            "field key": django_settings.FIELD_ENCRYPTION_KEYS[0],
        }
        self.fakes = {name: FakeHypervisor() for name in ("one.example", "two.example")}
        for fake in self.fakes.values():
            self._keep_isos(fake)
        self._set_up()

    def _keep_isos(self, fake: FakeHypervisor) -> None:
        place = fake.place

        def keep_and_place(name: str, content: bytes, deadline: float, *, storage: str = "") -> Media:
            self.isos.append(content)
            return place(name, content, deadline, storage=storage)

        fake.place = keep_and_place

    def _set_up(self) -> None:
        domain = make_domain()
        account = make_account(domain=domain)
        accounts = {
            "owner": account,
            "colleague": account,
            "domain admin": make_account(Role.DOMAIN_ADMIN, domain),
            "stranger": make_account(),
            "root": make_account(Role.ROOT_ADMIN),
        }
        self.people = {who: self._person(who, account) for who, account in accounts.items()}
        self.owner, self.root = self.people["owner"], self.people["root"]
        User.objects.filter(pk=self.root.user.pk).update(is_staff=True, is_superuser=True)
        cluster = make_cluster()
        self.zone = cluster.pod.zone
        for number, name in enumerate(self.fakes):
            endpoint = make_endpoint(
                name=name, transport="tcp", host=name, username="root", password=self.endpoint_password
            )
            make_host(cluster, endpoint=endpoint, memory=(16 + number) * GIB)
        self.network = make_network(self.zone, account)
        self.template = make_template(password_enabled=True)
        self.strict_template = make_template(password_enabled=True, drive_required=True)
        self.windows_template = make_template(password_enabled=True, os_family="Windows")
        self.size = make_service_offering()

    def _person(self, who: str, account) -> Signer:
        user = make_user(account, password=self.log_in_password)
        keys = make_api_key(user)
        self.plant_keys(who, keys)
        return Signer(user, keys)

    def plant_keys(self, whose: str, keys: NewApiKey) -> None:
        self.planted |= {f"API secret of {whose}": keys.secret_key, f"token of {whose}": keys.token}

    # Calls

    def call(self, command: str, *pairs: tuple[str, str], by: Signer | None = None, **params: object) -> dict:
        self.called.add(command)
        reply = (by or self.root).call(command, *pairs, method="post", **params)
        self.failed += reply.status != 200
        return reply.body

    def deployment(self, **changes: object) -> dict[str, object]:
        wanted = {
            "zoneid": self.zone.uuid,
            "templateid": self.template.uuid,
            "serviceofferingid": self.size.uuid,
            "networkids": self.network.uuid,
            "userdata": base64.b64encode(self.user_data.encode()).decode(),
            "password": self.password,
        }
        return {name: value for name, value in {**wanted, **changes}.items() if value is not None}

    def deploy(self, **changes: object) -> dict:
        answer = self.call("deployVirtualMachine", by=self.owner, **self.deployment(**changes))
        self.work()
        return answer

    def work(self) -> None:
        """Look at the queue, then do all that stands in it, as workers would."""
        look_at_queue(self.sinks)
        OrmQ.objects.all().delete()
        for job in AsyncJob.objects.filter(status=Status.PENDING):
            jobs.run(job.pk, job.attempt)

    def result(self, job: str, by: Signer) -> dict:
        return self.call("queryAsyncJobResult", by=by, jobid=job)["jobresult"]

    def on_the_hosts(self, secret: str) -> bool:
        """Whether it lies on some host now: ISOs that were removed do not count."""
        stores = [store for fake in self.fakes.values() for store in (fake.media, *fake.stored.values())]
        return any(secret.encode() in content for store in stores for content in store.values())

    def own_result(self, job: str) -> dict:
        """As the job's caller reads it, password and all."""
        with self.web.private():
            return self.result(job, self.owner)

    def own_failure(self, job: str) -> None:
        """As the job's caller reads it: the password, which may have got about, and beside it nothing secret."""
        failure = self.own_result(job)
        assert failure["errorcode"]
        assert failure.pop("password") == self.password
        self.sinks.add("answers", failure)

    def everybody_else_asks_for(self, job: str) -> None:
        for person in self.people.values():
            if person != self.owner:
                self.call("queryAsyncJobResult", by=person, jobid=job)

    @contextlib.contextmanager
    def broken(self, method: str, error: BaseException | None = None) -> Iterator[None]:
        for fake in self.fakes.values():
            fake.failing[method] = error or library_error(self.endpoint_password)
        try:
            yield
        finally:
            for fake in self.fakes.values():
                fake.failing.clear()

    # What they do

    def run(self, tmp_path: Path) -> None:
        for flow in (
            self.offerings_and_networks,
            self.a_vms_life,
            self.a_generated_password,
            self.key_pairs,
            self.password_resets,
            self.passwords_by_the_agent,
            self.other_resets,
            self.nics,
            self.tags,
            self.sizes_and_fresh_starts,
            self.a_destroyed_vm_recovered,
            self.refused_deploys,
            self.doubled_parameters,
            self.wrong_signatures,
            self.broken_hosts,
            self.broken_hosts_and_drives,
            self.drives_looked_after,
            self.drives_by_command,
            self.settings,
            self.alerts_and_mail,
            self.second_factor,
            self.endpoints_and_hosts,
            self.domains_and_accounts,
            self.users_and_keys,
            self.sessions,
            self.rest_and_log_in,
            self.lease_reports,
            self.admin_forms,
            self.admin_pages_of_drives,
            self.troubleshooting,
            lambda: self.commands(tmp_path),
            self.keys_rotated,
            self.events_put_away,
            self.housekeeping,
        ):
            flow()

    def offerings_and_networks(self) -> None:
        offering = self.call(
            "createNetworkOffering",
            name="external",
            displaytext="external DHCP",
            guestiptype="Shared",
            traffictype="Guest",
            specifyvlan="true",
            specifyipranges="true",
        )["networkoffering"]["id"]
        self.call("updateNetworkOffering", id=offering, state="Enabled")
        network = self.call(
            "createNetwork",
            name="office",
            zoneid=self.zone.uuid,
            networkofferingid=offering,
            vlan=4001,
            gateway="198.51.100.1",
            netmask="255.255.255.0",
            startip="198.51.100.10",
            endip="198.51.100.99",
        )["network"]["id"]
        self.call("restartNetwork", id=network)
        self.work()
        self.call("updateNetwork", id=network, displaytext="the office")
        self.work()
        self.call("deleteNetwork", id=network)
        self.work()
        self.call("deleteNetworkOffering", id=offering)
        self.call(
            "registerTemplate", name="debian", displaytext="x", format="QCOW2", hypervisor="KVM", url="debian.qcow2"
        )
        template = Template.objects.get(name="debian").uuid
        self.call("updateTemplate", id=template, displaytext="Debian")
        self.call("deleteTemplate", id=template)
        self.work()
        size = self.call("createServiceOffering", name="large", cpunumber=1, cpuspeed=500, memory=512)
        size = size["serviceoffering"]["id"]
        self.call("updateServiceOffering", id=size, name="larger")
        self.call("deleteServiceOffering", id=size)

    def a_vms_life(self) -> None:
        self.deployed = self.deploy(name="web")
        vm, job = self.deployed["id"], self.deployed["jobid"]
        self.everybody_else_asks_for(job)
        with self.web.private():
            assert self.result(job, self.owner)["virtualmachine"]["password"] == self.password
        self.everybody_else_asks_for(job)
        for command, params in (
            ("stopVirtualMachine", {}),
            ("startVirtualMachine", {}),
            ("rebootVirtualMachine", {}),
            ("rebootVirtualMachine", {"forced": "true"}),
            ("stopVirtualMachine", {"forced": "true"}),
            ("startVirtualMachine", {}),
        ):
            answer = self.call(command, by=self.owner, id=vm, **params)
            self.work()
            assert self.result(answer["jobid"], self.owner)["virtualmachine"]["id"] == vm
        self.call("migrateVirtualMachine", virtualmachineid=vm)
        self.work()
        gone = self.deploy(name="gone")["id"]
        self.call("destroyVirtualMachine", by=self.owner, id=gone)
        self.work()
        self.call("destroyVirtualMachine", id=gone, expunge="true")
        self.work()
        assert not VirtualMachine.objects.filter(uuid=gone).exists()

    def a_generated_password(self) -> None:
        job = self.deploy(name="generated", password=None)["jobid"]
        with self.web.private():
            generated = self.result(job, self.owner)["virtualmachine"]["password"]
        self.planted["VM password, generated"] = generated
        self.everybody_else_asks_for(job)

    def key_pairs(self) -> None:
        with self.web.private():
            made = self.call("createSSHKeyPair", by=self.owner, name="made")["keypair"]["privatekey"]
        # Whole as it was answered, and a line from its middle.
        self.planted |= {"SSH private key": made, "SSH private key, a line": made.splitlines()[10]}
        self.call("createSSHKeyPair", by=self.owner, name="made")
        for name, key in (("pasted", made), (made, "ssh-ed25519 AAAA"), ("pasted", f"ssh-rsa {made}")):
            assert "errorcode" in self.call("registerSSHKeyPair", by=self.owner, name=name, publickey=key)
        public = SshKeyPair.objects.get(name="made").public_key
        self.call("registerSSHKeyPair", by=self.owner, name="known", publickey=public)
        self.deploy(name="with-key", keypair="made")
        self.call("listSSHKeyPairs", by=self.owner)
        self.call("deleteSSHKeyPair", by=self.owner, name="known")
        self.call("deleteSSHKeyPair", by=self.people["stranger"], name="made")

    def password_resets(self) -> None:
        """One password after the other on a running VM and a stopped one: the old one is nowhere any more."""
        first, second, third = (f"{word}{secrets.token_hex(8)}" for word in ("Fst", "Snd", "Thd"))
        self.planted |= {"first password": first, "second password": second, "third password": third}
        vm = self.deploy(name="reset", password=first)["id"]
        assert self.on_the_hosts(first)

        job = self.call("resetPasswordForVirtualMachine", by=self.owner, id=vm, password=second)["jobid"]
        self.work()
        self.everybody_else_asks_for(job)
        assert self.own_result(job)["virtualmachine"]["password"] == second
        assert self.on_the_hosts(second)
        assert not self.on_the_hosts(first)

        self.call("stopVirtualMachine", by=self.owner, id=vm)
        self.work()
        job = self.call("resetPasswordForVirtualMachine", by=self.owner, id=vm, password=third)["jobid"]
        self.work()
        self.call("startVirtualMachine", by=self.owner, id=vm)
        self.work()
        assert self.own_result(job)["virtualmachine"]["password"] == third
        assert self.on_the_hosts(third)
        assert not self.on_the_hosts(second)

        job = self.call("resetPasswordForVirtualMachine", by=self.owner, id=vm)["jobid"]
        self.work()
        self.everybody_else_asks_for(job)
        made_up = self.own_result(job)["virtualmachine"]["password"]
        self.planted["VM password, made up by a reset"] = made_up
        assert self.on_the_hosts(made_up)
        assert not self.on_the_hosts(third)

        job = self.deploy(name="windows", templateid=self.windows_template.uuid, password=first)["jobid"]
        self.own_result(job)
        checksum = hashlib.md5(first.encode(), usedforsecurity=False).hexdigest()
        self.planted["checksum of a VM's password"] = checksum
        assert self.on_the_hosts(checksum)

        plain = self.deploy(name="plain", templateid=make_template().uuid, password=None)["id"]
        for by, refused in (
            (self.owner, {"id": plain, "password": self.password}),
            (self.owner, {"id": vm, "password": f"{self.password}é"}),
            (self.owner, {"id": vm, "password": f" {self.password}"}),
            (self.owner, {"id": vm, "password": f"$6$salt${self.password}"}),
            (self.owner, {"id": vm, "password": f"{self.password}\n"}),
            (self.owner, {"id": vm, "password": self.password * 20}),
            (self.owner, {"id": "none", "password": self.password}),
            (self.owner, {"password": self.password}),
            (self.people["stranger"], {"id": vm, "password": self.password}),
        ):
            assert "errorcode" in self.call("resetPasswordForVirtualMachine", by=by, **refused)
        # While one is under way, a second one is refused.
        job = self.call("resetPasswordForVirtualMachine", by=self.owner, id=vm, password=self.password)["jobid"]
        again = self.call("resetPasswordForVirtualMachine", by=self.owner, id=vm, password=self.password)
        assert "errorcode" in again
        self.work()
        self.own_result(job)

    def passwords_by_the_agent(self) -> None:
        password = f"Agt{secrets.token_hex(8)}"
        self.planted["password for the agent"] = password
        vm = self.deployed["id"]
        wanted = {"id": vm, "password": password, "guestuser": "root"}
        for error in (
            AgentAbsent("no agent"),
            Busy("busy"),
            library_error(password),
            None,
        ):
            with self.broken("set_password", error) if error else contextlib.nullcontext():
                job = self.call("resetPasswordForVirtualMachine", by=self.owner, **wanted)["jobid"]
                self.work()
            assert self.own_result(job)["virtualmachine"]["password"] == password
            assert self.on_the_hosts(password) == bool(error), "what the agent has set is on the drive no more"
            self.everybody_else_asks_for(job)
        assert password in [told for fake in self.fakes.values() for told in fake.passwords.values()]
        refused = self.call("resetPasswordForVirtualMachine", by=self.owner, **{**wanted, "guestuser": password * 3})
        assert "errorcode" in refused
        refused = self.call("resetPasswordForVirtualMachine", by=self.owner, **{**wanted, "guestuser": f"-{password}"})
        assert "errorcode" in refused

    def other_resets(self) -> None:
        vm = self.deployed["id"]
        secret = f"new{secrets.token_hex(12)}"
        self.planted["user data, new"] = secret
        data = base64.b64encode(f"#!/bin/sh\n# {secret}\n".encode()).decode()
        for command in ("resetUserDataForVirtualMachine", "updateVirtualMachine"):
            assert "virtualmachine" in self.call(command, by=self.owner, id=vm, userdata=data)
            self.work()
            for bad in (f"{data}!", data[:-3], data * 1000, f"{data}\n"):
                assert "errorcode" in self.call(command, by=self.owner, id=vm, userdata=bad)
            assert "errorcode" in self.call(command, by=self.people["stranger"], id=vm, userdata=data)
            too_much = ("userdata", data * 60)
            self.failed += self.owner.call(command, too_much, id=vm).status != 200
        assert self.on_the_hosts(secret)
        with self.web.private():
            told = self.call("getVirtualMachineUserData", by=self.owner, virtualmachineid=vm)
            assert told["virtualmachineuserdata"]["userdata"] == data
        assert "errorcode" in self.call(
            "getVirtualMachineUserData", by=self.people["stranger"], virtualmachineid=vm, userdata=data
        )
        for changes in ({"name": self.password}, {"name": "web2"}, {"displayname": "Web"}):
            self.call("updateVirtualMachine", by=self.owner, id=vm, **changes)
        for use in ("Never", self.password, "Always"):
            self.call("updateVirtualMachine", by=self.owner, id=vm, configdrive=use)
            self.work()
        self.call("resetSSHKeyForVirtualMachine", by=self.owner, id=vm, keypair="made")
        self.work()
        for name in ("none", self.planted["SSH private key"]):
            assert "errorcode" in self.call("resetSSHKeyForVirtualMachine", by=self.owner, id=vm, keypair=name)

    def nics(self) -> None:
        vm = self.deployed["id"]
        network = make_network(self.zone, self.owner.user.account)
        wanted = {"virtualmachineid": vm, "networkid": network.uuid}
        with self.broken("add_nic"):
            job = self.call("addNicToVirtualMachine", by=self.owner, **wanted)["jobid"]
            self.work()
        assert self.result(job, self.owner)["errorcode"]
        self.call("addNicToVirtualMachine", by=self.owner, **wanted)
        self.work()
        self.call("addNicToVirtualMachine", by=self.owner, **wanted)
        self.call("addNicToVirtualMachine", by=self.owner, **wanted, ipaddress=self.password)
        nic = Nic.objects.get(vm__uuid=vm, is_default=False)
        self.addresses_by_hand(vm, nic)
        with self.broken("remove_nic"):
            self.call("removeNicFromVirtualMachine", by=self.owner, virtualmachineid=vm, nicid=nic.uuid)
            self.work()
        self.call("removeNicFromVirtualMachine", by=self.people["stranger"], virtualmachineid=vm, nicid=nic.uuid)
        self.call("removeNicFromVirtualMachine", by=self.owner, virtualmachineid=vm, nicid=nic.uuid)
        self.work()
        assert Nic.objects.filter(vm__uuid=vm).count() == 1

    def addresses_by_hand(self, vm: str, nic: Nic) -> None:
        first = Nic.objects.get(vm__uuid=vm, is_default=True)
        for default in (nic, nic, first):
            self.call("updateDefaultNicForVirtualMachine", by=self.owner, virtualmachineid=vm, nicid=default.uuid)
            self.work()
        for address in ("192.0.2.77", self.password, ""):
            self.call("updateVmNicIp", by=self.owner, nicid=nic.uuid, ipaddress=address)
            self.work()
        for asked in ("fetchNicAddress", "resetNicAddressTries", "pauseNicAddress", "resumeNicAddress"):
            self.call(asked, by=self.owner, nicid=nic.uuid, password=self.password)
            self.call(asked, by=self.people["stranger"], nicid=nic.uuid)
        self.call("addIpToNic", by=self.owner, nicid=nic.uuid, ipaddress=self.password)
        added = self.call("addIpToNic", by=self.owner, nicid=nic.uuid, ipaddress="192.0.2.78")
        self.work()
        self.call("removeIpFromNic", by=self.people["stranger"], id=added["id"])
        self.call("removeIpFromNic", by=self.owner, id=added["id"])
        self.work()

    def sizes_and_fresh_starts(self) -> None:
        vm = self.deploy(name="fresh", startvm="false")["id"]
        size = {"id": vm, "serviceofferingid": make_service_offering().uuid}
        self.call("changeServiceForVirtualMachine", by=self.owner, **size)
        self.call("changeServiceForVirtualMachine", by=self.owner, **size, **{"details[0].secret": self.password})
        self.call("scaleVirtualMachine", by=self.owner, **size)
        self.work()
        with self.broken("delete_root"):
            self.call("restoreVirtualMachine", by=self.owner, virtualmachineid=vm)
            self.work()
        job = self.call("restoreVirtualMachine", by=self.owner, virtualmachineid=vm)["jobid"]
        self.work()
        made_up = self.own_result(job)["virtualmachine"]["password"]
        self.planted["VM password of a fresh start"] = made_up
        self.everybody_else_asks_for(job)
        self.call("startVirtualMachine", by=self.owner, id=vm)
        self.work()
        self.call("listVirtualMachines", by=self.people["colleague"], id=vm, userdata="false")
        self.call("listVirtualMachines", id=vm, userdata="true")
        with self.web.private():
            (shown,) = self.call("listVirtualMachines", by=self.owner, id=vm, userdata="true")["virtualmachine"]
        assert base64.b64decode(shown["userdata"]).decode() == self.user_data
        self.call("destroyVirtualMachine", by=self.owner, id=vm)
        self.work()
        self.call("expungeVirtualMachine", by=self.people["stranger"], id=vm)
        self.call("expungeVirtualMachine", id=vm)
        self.work()

    def tags(self) -> None:
        on = {"resourcetype": "UserVm", "resourceids": self.deployed["id"]}
        tag = {"tags[0].key": "role", "tags[0].value": "db"}
        self.call("createTags", by=self.people["stranger"], **on, **tag)
        self.call("createTags", by=self.owner, **on, **tag)
        self.call("createTags", by=self.owner, **on, **tag)
        self.call("deleteTags", by=self.owner, **on, **tag)
        self.work()

    def a_destroyed_vm_recovered(self) -> None:
        vm = self.deploy(name="back")["id"]
        self.call("destroyVirtualMachine", by=self.owner, id=vm)
        self.work()
        self.call("recoverVirtualMachine", by=self.people["stranger"], id=vm, password=self.password)
        assert self.call("recoverVirtualMachine", by=self.owner, id=vm)["virtualmachine"]["state"] == "Stopped"
        assert "errorcode" in self.call("recoverVirtualMachine", by=self.owner, id=vm)
        self.call("startVirtualMachine", by=self.owner, id=vm)
        self.work()

    def refused_deploys(self) -> None:
        plain = make_template()
        refused = [
            {"name": "web"},
            {"name": f"{self.password}"},
            {"userdata": f"{self.user_data}!"},
            {"userdata": base64.b64encode(self.user_data.encode()).decode()[:-1]},
            {"userdata": base64.b64encode(self.user_data.encode() * 2000).decode()},
            {"password": f"{self.password}\n"},
            {"password": f"{self.password}é"},
            {"password": self.password * 20},
            {"templateid": plain.uuid},
            {"templateid": "none"},
            {"zoneid": "none"},
            {"networkids": None},
            {"hypervisor": "VMware"},
            {"hostid": "none"},
            {"account": "none"},
            {"keypair": "none"},
            {"extraconfig": self.user_data},
            {"diskofferingid": "x"},
            {"uuid": "x"},
            {"iptonetworklist": self.password},
            {"details[0].rootpassword": self.password, "details": self.password},
        ]
        known = VirtualMachine.objects.count()
        before = self.failed
        for changes in refused:
            # No name of theirs may be refused for another reason.
            self.call("deployVirtualMachine", by=self.owner, **self.deployment(**{"name": None, **changes}))
        assert (self.failed - before, VirtualMachine.objects.count()) == (len(refused), known)
        for command in ("startVirtualMachine", "stopVirtualMachine", "destroyVirtualMachine", "rebootVirtualMachine"):
            self.call(command, by=self.people["stranger"], id=self.deployed["id"], password=self.password)
        self.call("startVirtualMachine", by=self.owner, id=self.deployed["id"])
        self.call("destroyVirtualMachine", by=self.owner, id=self.deployed["id"], expunge="true")
        self.call("noSuchCommand", by=self.owner, password=self.password)

    def doubled_parameters(self) -> None:
        for name, value in self.deployment(name="doubled").items():
            for spelt in (name, name.upper()):
                self.call("deployVirtualMachine", (spelt, str(value)), by=self.owner, **self.deployment(name="doubled"))
        own = ("secretKey", self.owner.keys.secret_key)
        self.call("listZones", own, own, by=self.owner)
        self.call("listZones", (f"a b{self.password}", "x"), by=self.owner, password=self.password)
        assert not VirtualMachine.objects.filter(name="doubled").exists()

    def wrong_signatures(self) -> None:
        secret = self.owner.keys.secret_key
        wrong = Signer(self.owner.user, NewApiKey(self.owner.keys.api_key, f"{secret}x", ""))
        swapped = Signer(self.owner.user, NewApiKey(secret, self.owner.keys.api_key, ""))
        before = self.failed
        self.call("deployVirtualMachine", by=wrong, **self.deployment(name="unsigned"))
        # A log of SQL, which no deployment has, would show this one: whoever sends it says that it is a key's name.
        connection.force_debug_cursor = False
        self.call("deployVirtualMachine", by=swapped, **self.deployment(name="unsigned"))
        connection.force_debug_cursor = True
        self.call("listZones", by=self.owner, signatureversion="3", expires="2001-01-01T00:00:00Z")
        assert self.failed == before + 3
        pairs = [("command", "listZones"), ("apiKey", self.owner.keys.api_key)]
        for as_json in ([], [("response", "json")]):
            for method in ("get", "post"):
                send([*pairs, *as_json, ("signature", secret), ("password", self.password)], method)
        send([("command", "login"), ("username", self.owner.user.username), ("password", self.log_in_password)], "post")
        body = json.dumps({"command": "login", "password": self.log_in_password})
        Client().post(ENDPOINT, body, content_type="application/json")
        Client().put(f"{ENDPOINT}?password={self.log_in_password}", body, content_type="application/json")

    def broken_hosts(self) -> None:
        for number, method in enumerate(("power_state", "ensure_network", "define", "start")):
            with self.broken(method):
                answer = self.deploy(name=f"broken-{number}")
            self.own_failure(answer["jobid"])
            self.everybody_else_asks_for(answer["jobid"])
            assert VirtualMachine.objects.get(uuid=answer["id"]).state == VmState.ERROR
        vm = self.deployed["id"]
        for method, command, by, params in (
            ("stop", "stopVirtualMachine", self.owner, {"id": vm}),
            ("undefine", "stopVirtualMachine", self.owner, {"id": vm}),
            ("remove", "rebootVirtualMachine", self.owner, {"id": vm, "forced": "true"}),
            ("reboot", "rebootVirtualMachine", self.owner, {"id": vm}),
            ("migrate", "migrateVirtualMachine", self.root, {"virtualmachineid": vm}),
            ("place", "migrateVirtualMachine", self.root, {"virtualmachineid": vm}),
        ):
            VirtualMachine.objects.filter(uuid=vm, state=VmState.STOPPING).update(state=VmState.RUNNING)
            with self.broken(method):
                answer = self.call(command, by=by, **params)
                self.work()
            self.everybody_else_asks_for(answer["jobid"])
        VirtualMachine.objects.filter(uuid=vm, state=VmState.STOPPING).update(state=VmState.RUNNING)

    def broken_hosts_and_drives(self) -> None:
        """A VM whose drive cannot be made starts without, unless its template requires it; either way it is told."""
        for number, (method, error) in enumerate(
            (
                ("place", library_error(self.password[:18])),
                ("place", StorageProblem("The pool is full.")),
                ("insert", library_error(self.password[:18])),
                ("insert", Busy("shut")),
            )
        ):
            for template, state in ((self.template, VmState.RUNNING), (self.strict_template, VmState.ERROR)):
                with self.broken(method, error):
                    answer = self.deploy(name=f"{template.drive_required}-{number}", templateid=template.uuid)
                assert VirtualMachine.objects.get(uuid=answer["id"]).state == state, (method, error)
                self.own_result(answer["jobid"])
                self.everybody_else_asks_for(answer["jobid"])
        assert ConfigDrive.objects.exclude(last_error="").exists()
        vm = self.deployed["id"]
        for method in ("list_media", "place", "insert", "remove"):
            with self.broken(method):
                job = self.call("resetPasswordForVirtualMachine", by=self.owner, id=vm, password=self.password)["jobid"]
                self.work()
            self.own_result(job)
            self.everybody_else_asks_for(job)

    def drives_looked_after(self) -> None:
        old = timezone.now() - upkeep.LEFT_FOR * 2
        for method in ("none", "list_media", "inserted", "read", "remove", "insert", "place"):
            Leftover.objects.update(since=old)
            AsyncJob.objects.filter(command="refreshVirtualMachine").update(created_at=old)
            for fake in self.fakes.values():
                for name in list(fake.media)[:2]:
                    fake.media[name] = b"changed"
            with self.broken(method):
                for task in (upkeep.look_after, upkeep.remove_leftovers, upkeep.reconcile):
                    task()
                    self.work()
        upkeep.reconcile()
        self.work()
        assert AsyncJob.objects.filter(command="verifyConfigDrive").exists()

    def settings(self) -> None:
        for name, value in (
            # Its refusal repeats what was typed, cut to 40 characters: a label is no secret.
            ("vm.configdrive.label", "not a label!"),
            ("cloud.identifier", self.password),
            ("externaldhcp.vmip.retrieval.interval", self.password),
            ("externaldhcp.vmip.early.retry", self.password),
            ("cpu.overprovisioning.factor", self.password),
            ("vm.password.length", self.password * 300),
            ("no.such.setting", self.password),
        ):
            assert "errorcode" in self.call("updateConfiguration", name=name, value=value), name
        self.call("updateConfiguration", name="vm.password.length", value="20")
        for name in ("vm.password.length", "no.such.setting"):
            self.call("resetConfiguration", name=name)

    def alerts_and_mail(self) -> None:
        """A mail server's password, wrong and right; alerts that it does not take, seen to and put away."""
        self.planted["mail password"] = password = f"Sm{secrets.token_hex(8)}"
        for wrong in (f"{password}\n", f"{password}\x7f"):
            assert "errorcode" in self.call("updateConfiguration", name="alert.smtp.password", value=wrong)
        for name, value in (
            ("alert.smtp.password", password),
            ("alert.smtp.username", "mail"),
            ("alert.smtp.useAuth", "true"),
            ("alert.email.addresses", "ops@example.com"),
            ("alert.smtp.host", "127.0.0.1"),
            ("alert.smtp.port", "1"),
        ):
            assert "errorcode" not in self.call("updateConfiguration", name=name, value=value), name
        assert "errorcode" in self.call("updateConfiguration", name="alert.smtp.port", value=password)
        for host in Host.objects.all()[:2]:
            alerts.raise_(alerts.Problem(Kind.HOST, events.Subject.of(host), "It is silent."), timezone.now())
        send_due(timezone.now())
        for alert, command in zip(Alert.objects.all()[:2], ("archiveAlerts", "deleteAlerts"), strict=True):
            self.call("acknowledgeAlert", id=alert.uuid)
            self.call(command, ids=alert.uuid)

    def second_factor(self) -> None:
        """Set up by one user, asked for at a log-in, and taken away."""
        user, secret = self.people["colleague"].user, base64.b32encode(secrets.token_bytes(20)).decode()
        self.planted["second factor"] = secret
        TOTP.activate(user, secret)
        log_in = {"username": user.username, "password": self.log_in_password}
        client = Client()
        client.post(reverse("login"), log_in)
        client.post(reverse("mfa_authenticate"), {"code": "000000"})
        self.call("removeSecondFactor", by=self.people["stranger"], id=user.uuid)
        assert "errorcode" not in self.call("removeSecondFactor", id=user.uuid)

    def drives_by_command(self) -> None:
        """Looked into by those who may, mended, taken out."""
        vm = self.deployed["id"]
        with self.web.private():
            shown = self.call("revealConfigDrive", by=self.owner, virtualmachineid=vm)
        assert self.password not in json.dumps(shown)
        self.call("revealConfigDrive", by=self.people["stranger"], virtualmachineid=vm)
        for command in ("rebuildConfigDrive", "verifyConfigDrive", "ejectConfigDrive", "rebuildConfigDrive"):
            self.call(command, by=self.people["stranger"], virtualmachineid=vm)
            assert "errorcode" not in self.call(command, virtualmachineid=vm)
            self.work()

    def endpoints_and_hosts(self) -> None:
        """Credentials typed, tried, stored, moved and refused; each with a host that says too much."""
        zone = self.call("createZone", name="canaries")["zone"]["id"]
        pod = self.call("createPod", name="rack", zoneid=zone)["pod"]["id"]
        cluster = self.call("addCluster", clustername="kvm", podid=pod, hypervisor="KVM")["cluster"]["id"]
        self.call("createStoragePool", name="pool", clusterid=cluster)
        address = {"hypervisor": "KVM", "transport": "tcp", "host": "one.example", "username": "root"}
        login = {"password": self.endpoint_password}
        self.call("tryEndpoint", **address, **login)
        made = self.call("createEndpoint", name="three", **address, **login)["endpoint"]["id"]
        self.call("createEndpoint", name="three", **address, **login)
        for wrong in ("host", "port", "fingerprint", "cacertificates"):
            self.call("createEndpoint", **{"name": "four", **address, **login, wrong: self.endpoint_password})
            self.call("tryEndpoint", **{**address, **login, wrong: self.endpoint_password})
        self.call("updateEndpoint", id=made, name="renamed", **login)
        self.call("updateEndpoint", id=made, port=0, **login)
        for method in ("none", "host_facts", "list_vms", "list_media"):
            with self.broken(method):
                self.call("tryEndpoint", id=made)
                self.call("checkEndpoint", id=made)
                self.work()
                host = self.call("addHost", name=f"host-{method}", clusterid=cluster, endpointid=made)
            if "host" in host:
                self.call("updateHost", id=host["host"]["id"], allocationstate="Disable")
                self.call("deleteEndpoint", id=made)
                self.call("deleteHost", id=host["host"]["id"])
        self.call("listEndpoints")
        self.call("deleteEndpoint", id=made)

    def person(self, username: str) -> dict[str, str]:
        """Parameters of a new user, whose password nobody may see."""
        password = f"Pw{secrets.token_hex(8)}"
        self.planted[f"password of {username}"] = password
        return {
            "username": username,
            "password": password,
            "firstname": "F",
            "lastname": "L",
            "email": "x@example.com",
        }

    def domains_and_accounts(self) -> None:
        domain = self.call("createDomain", name="branch")["domain"]["id"]
        for changes in ({"name": "other"}, {"networkdomain": self.password}, {"networkdomain": "example.com"}):
            self.call("updateDomain", id=domain, **changes)
        person = self.person("first")
        wanted = {"domainid": domain, "account": "branch", **person}
        for changes in ({"email": person["password"]}, {"password": f"{person['password']}\n"}, {"accounttype": 9}):
            assert "errorcode" in self.call("createAccount", **{**wanted, **changes})
        account = self.call("createAccount", **wanted)["account"]["id"]
        assert "errorcode" in self.call("createAccount", **wanted)
        self.call("updateAccount", id=account, newname="twig")
        self.call("disableAccount", id=account, lock="true")
        self.work()
        self.call("enableAccount", id=account)
        assert "errorcode" in self.call("deleteDomain", id=domain)
        for command, uuid in (("deleteAccount", account), ("deleteDomain", domain)):
            self.call(command, id=uuid)
            self.work()
            assert "errorcode" in self.call(command, id=uuid)

    def users_and_keys(self) -> None:
        account = self.owner.user.account
        person = self.person("second")
        wanted = {"account": account.name, "domainid": account.domain.uuid, **person}
        user = self.call("createUser", **wanted)["user"]["id"]
        assert "errorcode" in self.call("createUser", **wanted)
        with self.web.private():
            made = self.call("registerUserKeys", id=user)["userkeys"]
        self.plant_keys("registerUserKeys", NewApiKey(made["apikey"], made["secretkey"], made["token"]))
        second = Signer(User.objects.get(uuid=user), NewApiKey(made["apikey"], made["secretkey"], made["token"]))
        fresh = f"Fr{secrets.token_hex(8)}"
        self.planted["password, changed"] = fresh
        for current in (None, self.password, person["password"]):
            given = {"currentpassword": current} if current else {}
            self.call("updateUser", by=second, id=user, password=fresh, **given)
        assert User.objects.get(uuid=user).check_password(fresh)
        self.call("updateUser", by=self.people["stranger"], id=user, password=fresh)
        self.call("updateUser", id=user, password=fresh, email=fresh)
        self.call("getUser", by=second, userapikey=made["apikey"])
        self.call("getUserKeys", by=second, id=user)
        self.call("getUserKeys", id=user)
        listed = self.call("listApiKeys", userid=user)["apikey"][0]["id"]
        self.call("disableApiKey", id=listed)
        self.call("disableUser", id=user)
        self.work()
        self.call("registerUserKeys", id=user)
        self.call("enableUser", id=user)
        self.call("deleteUser", id=user)
        assert "errorcode" in self.call("deleteUser", id=user)

    def sessions(self) -> None:
        """Log-ins on /client/api, right and wrong; calls with the session's key, right and wrong."""
        user, client = self.owner.user, Client()
        right = {
            "command": "login",
            "response": "json",
            "username": user.username,
            "password": self.log_in_password,
            "domainid": user.account.domain.uuid,
        }
        for changes in ({"password": self.log_in_password[:-1]}, {"username": "nobody"}, {"domainid": "x"}):
            assert client.post(ENDPOINT, {**right, **changes}).status_code != 200
        client.get(ENDPOINT, right)
        form = {"content_type": "application/x-www-form-urlencoded"}
        with self.web.private():
            key = client.post(ENDPOINT, urlencode(right), **form).json()["loginresponse"]["sessionkey"]
        self.planted["session key"] = key
        for sessionkey in (key, f"{key}x", key[:-1]):
            for command in ("listZones", "noSuchCommand", "createSSHKeyPair"):
                client.get(ENDPOINT, {"command": command, "response": "json", "sessionkey": sessionkey})
        client.post(ENDPOINT, urlencode({"command": "logout", "sessionkey": key}), **form)
        assert client.get(ENDPOINT, {"command": "listZones", "sessionkey": key}).status_code == 401

    def rest_and_log_in(self) -> None:
        token = self.owner.keys.token
        for authorization in (
            f"Bearer {token}",
            f"Bearer {token}x",
            f"Bearer {token[1:]}x",
            f"Bearer  {token} {token}",
        ):
            for path in ("vms/", "webhooks/", f"vms/{self.deployed['id']}/", f"vms/?password={self.password}"):
                Client().get(f"/api/v1/{path}", headers={"authorization": authorization})
        for authorization in (f"Token {token}", f"Basic {base64.b64encode(f'x:{token}'.encode()).decode()}"):
            Client().get("/api/v1/vms/", headers={"authorization": authorization})
        Client().get("/api/v1/vms/", {"token": token})
        Client().post("/api/v1/vms/", {"password": self.password}, content_type="application/json")
        for path in ("/client/webhook", "/api/v1/webhooks/addresses/"):
            Client().post(path, {"token": token}, content_type="application/json")
        username = self.root.user.username
        for password in (f"{self.log_in_password}x", self.log_in_password):
            for name in (username, f"no-{username}"):
                client = Client()
                client.post("/login/", {"username": name, "password": password})
                client.get("/")

    def lease_reports(self) -> None:
        """Tokens as the command and the admin show them once; reports with them, right and wrong."""
        client = Client()
        client.force_login(self.root.user)
        with self.web.private():
            form = {"network": self.network.pk, "name": "dhcp-1"}
            by_admin = client.post(reverse("admin:ipfetch_leasetoken_add"), form).context["token"]
        tokens = {"admin": by_admin}
        for as_json in ([], ["--json"]):
            words = ["create_lease_token", self.network.uuid, *as_json]
            shown = run_command(self.sinks, *words, shows_secrets=True)
            tokens[f"command {as_json}"] = json.loads(shown)["token"] if as_json else shown.split()[1]
        run_command(self.sinks, "create_lease_token", "nowhere")
        self.planted |= {f"lease token by {maker}": token for maker, token in tokens.items()}
        mac = Nic.objects.get(vm__name="web").mac_address
        statuses = set()
        for token in tokens.values():
            for wrong in (
                {},
                {"event": "old"},
                {"ip": "203.0.113.7"},
                {"mac": token},
                {"hostname": [token]},
                {token: 1},
            ):
                report = {"event": "add", "mac": mac, "ip": "192.0.2.77", **wrong}
                for authorization in (f"Bearer {token}", f"Bearer {token}x", f"Token {token}"):
                    headers = {"authorization": authorization}
                    answer = client.post("/api/v1/leases/", report, content_type="application/json", headers=headers)
                    statuses.add(answer.status_code)
        assert statuses == {202, 400, 401, 422}

    def admin_forms(self) -> None:
        """Forms that are sent back with an error must not hold what was typed into their password fields."""
        client = Client()
        client.force_login(self.root.user)
        endpoint = Endpoint.objects.first()
        page = reverse("admin:networks_endpoint_change", args=[endpoint.pk])
        for port in ("99999999999", "16509"):
            form = {"name": endpoint.name, "kind": "KVM", "transport": "tcp", "host": endpoint.host, "username": "root"}
            client.post(page, {**form, "port": port, "new_password": self.endpoint_password})
        assert Endpoint.objects.get(pk=endpoint.pk).password == self.endpoint_password
        for page in ("/admin/accounts/user/add/", f"/admin/accounts/user/{self.owner.user.pk}/password/"):
            fields = {"username": "", "password1": self.log_in_password, "password2": f"{self.log_in_password}x"}
            assert client.post(page, {**fields, "usable_password": "true"}).status_code == 200

    def admin_pages_of_drives(self) -> None:
        """Every drive's page and every VM's, as they are and while their drives cannot be built."""
        client = Client()
        client.force_login(self.root.user)
        drives = reverse("admin:configdrive_configdrive_changelist")
        every = list(ConfigDrive.objects.values_list("pk", flat=True))
        for action in ("verify", "rebuild", "eject"):
            assert client.post(drives, {"action": action, "_selected_action": every}, follow=True).status_code == 200
            self.work()
        for drive in ConfigDrive.objects.all():
            for page, key in (("networks_virtualmachine", drive.vm_id), ("configdrive_configdrive", drive.pk)):
                assert client.get(reverse(f"admin:{page}_change", args=[key])).status_code == 200
        VirtualMachine.objects.filter(name="web").update(ssh_keys=[{"name": "x", "public_key": "a\nb"}])
        drive = ConfigDrive.objects.get(vm__name="web")
        page = client.get(reverse("admin:configdrive_configdrive_change", args=[drive.pk]))
        assert "cannot be built" in page.text
        VirtualMachine.objects.filter(name="web").update(ssh_keys=[])
        self.call("stopVirtualMachine", by=self.owner, id=self.deployed["id"])
        self.work()
        self.call("startVirtualMachine", by=self.owner, id=self.deployed["id"])
        self.work()

    def troubleshooting(self) -> None:
        vm = VirtualMachine.objects.get(name="web")
        assert vm.password, "the canary must wait to be set"
        nic = vm.nics.get()
        fakes = self.fakes.values()
        reports = (b"", b"version=1\n", self.password.encode(), f"password={self.password}\n".encode() * 3, b"\xff")
        for report in reports:
            for fake in fakes:
                fake.guest_files[str(vm.uuid), STATUS_FILE] = report
            run_command(self.sinks, "troubleshoot", "web")
        for names in ("web", vm.uuid, vm.instance_name, nic.uuid, nic.mac_address, "nobody", "reset", "windows"):
            for as_json in ([], ["--json"]):
                run_command(self.sinks, "troubleshoot", names, *as_json)
        asked = ("power_state", "inserted", "read", "bytes_read", "read_guest_file")
        for method in (*asked, "agent_state", "nic_state", "read_addresses"):
            with self.broken(method):
                run_command(self.sinks, "troubleshoot", "web", verbosity=3)
        for other in VirtualMachine.objects.exclude(pk=vm.pk):
            run_command(self.sinks, "troubleshoot", other.uuid)

    def keys_rotated(self) -> None:
        """A new key before the old one; and the old one lost."""
        first = django_settings.FIELD_ENCRYPTION_KEYS[0]
        second, lost = (Fernet.generate_key().decode() for _ in range(2))
        self.planted |= {"field key, new": second, "field key, wrong": lost}
        for as_json in ([], ["--json"]):
            with mock.patch.object(django_settings, "FIELD_ENCRYPTION_KEYS", [lost]):
                run_command(self.sinks, "rotate_keys", *as_json)
        django_settings.FIELD_ENCRYPTION_KEYS = [second, first]
        for as_json in ([], ["--json"]):
            run_command(self.sinks, "rotate_keys", *as_json)
        django_settings.FIELD_ENCRYPTION_KEYS = [second]
        assert Endpoint.objects.first().password == self.endpoint_password

    def commands(self, tmp_path: Path) -> None:
        for words in (["list_vms"], ["list_nics"], ["fetch_ips"], ["guest_script"]):
            for as_json in ([], ["--json"]):
                run_command(self.sinks, *words, *as_json)
        with self.broken("read_addresses"):
            run_command(self.sinks, "fetch_ips", "--json")
        for words in (["--all"], ["--vm", "web", "--now"], ["--nic", "nobody"], ["--network", "nowhere"]):
            run_command(self.sinks, "fetch_ips", *words)
        fake = self.fakes["one.example"]
        with mock.patch("networks.services.places.driver", return_value=fake):
            for method in ("none", "host_facts", "ensure_network"):
                with self.broken(method):
                    run_command(self.sinks, "check_endpoint", "one.example", "--json")
                    run_command(self.sinks, "check_endpoint", "one.example", verbosity=3)
        for as_json in ([], ["--json"]):
            shown = run_command(self.sinks, "create_api_key", self.owner.user.username, *as_json, shows_secrets=True)
            made = json.loads(shown) if as_json else dict(line.split() for line in shown.splitlines())
            self.plant_keys(f"create_api_key {as_json}", NewApiKey(**made))
        run_command(self.sinks, "create_api_key", "nobody")
        for words in (
            ["web", "--output", tmp_path / "web.iso"],
            ["web", "--output", tmp_path / "web.iso"],
            ["web", "--output", tmp_path / "json.iso", "--json"],
            ["nobody"],
        ):
            run_command(self.sinks, "build_configdrive", *words)
        self.isos.append((tmp_path / "web.iso").read_bytes())

    def events_put_away(self) -> None:
        mine = self.call("listEvents", by=self.owner, pagesize=2, page=1)["event"]
        for command, event in zip(("archiveEvents", "deleteEvents"), mine, strict=True):
            self.call(command, by=self.owner, ids=event["id"])
            assert "errorcode" in self.call(command, by=self.owner, enddate=self.password)

    def housekeeping(self) -> None:
        job = AsyncJob.objects.filter(status=Status.SUCCEEDED).first()
        AsyncJob.objects.filter(pk=job.pk).update(
            status=Status.PENDING, completed_at=None, heartbeat_at=timezone.now() - jobs.LOST_AFTER * 2
        )
        jobs.housekeeping()
        self.work()
        VirtualMachine.objects.filter(name="web").update(
            state=VmState.STARTING, state_since=timezone.now() - timezone.timedelta(hours=1)
        )
        with self.broken("power_state"):
            lifecycle.housekeeping()
        lifecycle.housekeeping()


@pytest.fixture
def sinks() -> Sinks:
    return Sinks()


@pytest.fixture
def own_keys(settings) -> None:
    """Keys of the server that stand nowhere else."""
    settings.SECRET_KEY = f"sk{secrets.token_hex(24)}"
    settings.FIELD_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


@pytest.fixture
def web(sinks) -> Web:
    return Web(sinks)


@pytest.fixture
def flows(own_keys, sinks, web) -> Iterator[Flows]:
    with logs_go_to(sinks):
        flows = Flows(sinks, web)
        with hypervisors(flows.fakes):
            yield flows


# The tests ---------------------------------------------------------------------------------------


def test_no_secret_shows_where_it_does_not_belong(flows, sinks, web, tmp_path, capfd):
    with web.recorded():
        flows.run(tmp_path)
    look_at_queue(sinks)
    flows.called |= look_at_lists(sinks, web, flows.people)
    look_at_admin(sinks, web, flows.root.user)
    look_at_console(sinks, web, *(flows.people[who] for who in ("root", "domain admin", "stranger")))
    look_at_rows(sinks)
    if connection.vendor == "sqlite":
        look_at_process(sinks, tmp_path, "build_configdrive", "web", "--output", str(tmp_path / "ps.iso"))
    printed = capfd.readouterr()
    sinks.add("commands", printed.out + printed.err)

    # What was planted did flow: it is where it belongs.
    drives = b"".join(flows.isos)
    assert flows.password.encode() in drives
    assert flows.user_data.encode() in drives
    assert flows.planted["VM password, generated"].encode() in drives
    assert flows.failed > 60
    assert SINKS - {"processes"} <= sinks.texts.keys()
    # The suite grows with each command.
    never_called = {command.name for command in registry.commands()} - flows.called
    assert never_called == set(NOT_EXERCISED), "call it in a flow, with a secret in it if it takes one"

    leaks = sinks.leaks(flows.planted)
    assert not leaks, "\n".join(leaks)


def test_a_secret_in_words_of_a_library_that_no_driver_knew_is_not_logged(flows, sinks, web):
    """An exception that is none of ours, out of a driver: its message may quote anything."""
    with web.recorded(), flows.broken("define", RuntimeError(f"password={flows.endpoint_password}")):
        answer = flows.deploy(name="unforeseen")
        flows.own_failure(answer["jobid"])
        flows.everybody_else_asks_for(answer["jobid"])
    look_at_rows(sinks)

    assert sinks.leaks(flows.planted) == []


CANARY = "canary-7f3a91c2"


@pytest.mark.parametrize(
    "spelling",
    [
        CANARY,
        CANARY.upper(),
        CANARY.encode().hex(),
        *(base64.b64encode(b"x" * offset + CANARY.encode() + b"yyy").decode() for offset in range(4)),
        base64.urlsafe_b64encode(f"??{CANARY}??".encode()).decode(),
    ],
)
def test_the_searcher_knows_the_spelling(spelling, sinks):
    sinks.add("somewhere", f"before {spelling} after")

    assert sinks.with_a_leak({"canary": CANARY}) == {"somewhere"}


@pytest.mark.parametrize("spell", [json.dumps, repr, html.escape, quote, quote_plus, str.lower, ascii])
def test_the_searcher_knows_how_special_characters_are_escaped(spell, sinks):
    secret = "a\"<&%+/\\' b"
    sinks.add("somewhere", spell(secret))

    assert sinks.with_a_leak({"canary": secret}) == {"somewhere"}


def test_the_searcher_finds_nothing_where_nothing_is(sinks):
    sinks.add("somewhere", CANARY[:-1])

    assert sinks.leaks({"canary": CANARY}) == []


def test_a_leak_into_any_sink_is_found(own_keys, sinks, web, tmp_path):
    """The canary, planted through what each sink collects from: the suite can fail, everywhere."""
    root = Signer.of(make_account(Role.ROOT_ADMIN))
    User.objects.filter(pk=root.user.pk).update(is_staff=True, is_superuser=True)
    vm = make_running_vm(name=CANARY)
    events.record(events.EventType.VM_START, f"started with {CANARY}", account=vm.account)
    AsyncJob.objects.create(
        command=CANARY, account=vm.account, user=make_user(), instance_type="x", instance_uuid=vm.uuid
    )
    OrmQ.objects.create(key="x", payload=SignedPackage.dumps({"func": "f", "args": (CANARY,)}), lock=timezone.now())
    with logs_go_to(sinks):
        logging.getLogger("any.library").debug("the password is %s", CANARY)
    with web.recorded():
        root.call("listZones", zoneid=CANARY)
        root.call("listVirtualMachines", id=CANARY)
    look_at_queue(sinks)
    look_at_rows(sinks)
    look_at_lists(sinks, web, {"root": root})
    look_at_admin(sinks, web, User.objects.get(pk=root.user.pk))
    look_at_console(sinks, web, root)
    run_command(sinks, "list_vms")
    look_at_process(sinks, tmp_path, "build_configdrive", CANARY, "--output", str(tmp_path / "x.iso"))

    assert sinks.with_a_leak({"canary": CANARY}) == SINKS


@pytest.mark.parametrize("sink", ["stdout", "stderr"])
def test_a_leak_into_a_commands_output_is_found(sinks, sink, capfd):
    make_vm(name="web")

    def leak(*args: object, **options: object) -> None:
        print(CANARY, file=getattr(sys, sink))

    with mock.patch(f"{__name__}.call_command", leak):
        run_command(sinks, "list_vms")

    assert sinks.with_a_leak({"canary": CANARY}) == {"commands"}


def test_every_sealed_column_has_a_canary():
    """A new one is planted in a flow above, and named here."""
    sealed = {
        f"{model.__name__}.{column.name}"
        for model in apps.get_models()
        for column in model._meta.fields
        if isinstance(column, EncryptedTextField)
    }
    assert sealed == {
        "ApiKey.secret",
        "AsyncJob.secret",
        "Endpoint.password",
        "SecretSetting.value",
        "VirtualMachine.password",
        "VirtualMachine.user_data",
    }
