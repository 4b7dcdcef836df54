"""A vSphere in memory, for what the vCenter simulator does not model: questions, refusals, lost files and sessions.

It takes the place of the SOAP stub: pyVmomi's own types go in and come out, and no XML is made of them. It keeps few
rules, those that the driver has to cope with: a guest that holds its CD-ROM's door makes a task wait for an answer; IDE
takes nothing while a VM runs; a disc whose file is missing cannot be inserted; names are escaped.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from networks.hypervisors.base import DeadlineExceeded, Media
from networks.hypervisors.bounded import current_deadline
from networks.hypervisors.vsphere_types import vim, vmodl

Answer = SimpleNamespace  # pyVmomi's own would want each value of the type that its property has
Query = vmodl.query.PropertyCollector
Device = vim.vm.device


@dataclass
class FakeVsphere:
    """One vCenter with one host, unless more are made. Give it as `vsphere_session.SoapStub`: it makes itself the stub
    of every session.
    """

    objects: dict[Any, dict[str, Any]] = field(default_factory=dict)  # properties by object
    files: set[str] = field(default_factory=set)  # paths that discs may have
    locked: set[Any] = field(default_factory=set)  # VMs whose guest holds the door of its drive
    failing: dict[str, Exception] = field(default_factory=dict)  # what a method raises, by its name
    ending: dict[str, Exception] = field(default_factory=dict)  # what the task of a method ends with
    stuck: set[str] = field(default_factory=set)  # methods whose tasks never end
    denied: set[str] = field(default_factory=set)  # privileges
    calls: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)  # to questions
    searched: list[str] = field(default_factory=list)  # patterns of files
    question_text: str = "msg.cdromdisconnect.locked:The guest operating system has locked the CD-ROM door"
    page: int = 1000
    logged_in: bool = False
    cookie: str = ""

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._told: dict[Any, dict[Any, dict[str, Any]]] = {}  # by collector, what it has told
        self._filters: dict[Any, list[Any]] = {}
        self._waiting: dict[Any, Callable[[str], None]] = {}  # by VM, what its answer sets going
        self._pages: dict[str, list[Any]] = {}
        self.root, self.datacenter = self.make(vim.Folder, "root"), self.make(vim.Datacenter, "dc")
        self.vm_folder, self.cluster = self.make(vim.Folder, "vms"), self.make(vim.ClusterComputeResource, "cluster")
        self.host, self.store = self.make(vim.HostSystem, "host"), self.make(vim.Datastore, "store")
        self.browser, self.pool = self.make(vim.host.DatastoreBrowser, "browser"), self.make(vim.ResourcePool, "pool")
        self.network = self.make(vim.Network, "network", name="VM Network")
        self.objects[self.root] = {"name": "Datacenters", "parent": None}
        self.objects[self.datacenter] = {"name": "dc%2feast", "parent": self.root, "vmFolder": self.vm_folder}
        self.objects[self.datacenter] |= {"hostFolder": self.root, "datastore": [self.store], "network": [self.network]}
        self.objects[self.cluster] = {"name": "cluster", "parent": self.datacenter, "resourcePool": self.pool}
        self.objects[self.host] = {"name": "esx-1", "parent": self.cluster, "datastore": [self.store]}
        self.objects[self.host] |= {"network": [self.network], "summary.hardware": self.hardware()}
        self.objects[self.host] |= {"runtime.connectionState": "connected", "runtime.inMaintenanceMode": False}
        self.objects[self.store] = {"browser": self.browser, "summary": self.summary()}

    # What a test sets up ------------------------------------------------------------------------

    def make(self, kind: Any, identifier: str, **properties: Any) -> Any:
        made = kind(identifier, self)
        self.objects[made] = properties
        return made

    def summary(self, **fields: Any) -> Any:
        known = {"name": "store", "type": "VMFS", "accessible": True, "maintenanceMode": "normal", "freeSpace": 10**9}
        known |= {"multipleHostAccess": True}
        return vim.Datastore.Summary(url="", capacity=10**10, **(known | fields))

    def hardware(self) -> Any:
        return Answer(numCpuThreads=2, cpuMhz=2000, memorySize=2**32)

    def make_host(self, name: str, **properties: Any) -> Any:
        """One more, which has what the first one has."""
        host = self.make(vim.HostSystem, f"host-{next(self._numbers)}")
        self.objects[host] = self.objects[self.host] | {"name": name} | properties
        return host

    def make_vm(self, uuid: str, *devices: Any, marks: dict[str, str] | None = None, on: bool = True) -> Any:
        options = [vim.option.OptionValue(key=key, value=value) for key, value in (marks or {}).items()]
        vm = self.make(vim.VirtualMachine, f"vm-{next(self._numbers)}")
        self.objects[vm] = {
            "name": f"vm {vm._moId}",
            "config.uuid": uuid,
            "config.instanceUuid": f"instance-of-{uuid}",
            "config.template": False,
            "config.extraConfig": options,
            "config.hardware.device": list(devices),
            "runtime.powerState": "poweredOn" if on else "poweredOff",
            "runtime.host": self.host,
            "runtime.connectionState": "connected",
            "runtime.question": None,
            "datastore": [self.store],
            "guest.toolsRunningStatus": "guestToolsRunning",
            "guest.net": [],
        }
        return vm

    # The stub -----------------------------------------------------------------------------------

    def __call__(self, _address: object, version: str) -> "FakeVsphere":
        return self

    def DropConnections(self) -> None:
        pass

    def InvokeMethod(self, this: Any, method: Any, arguments: Any) -> Any:
        name = method.wsdlName
        if time.monotonic() > current_deadline():
            raise DeadlineExceeded("as the real stub does")
        self.calls.append(name)
        if name in self.failing:
            raise self.failing[name]
        if not self.logged_in and name not in ("RetrieveServiceContent", "Login"):
            raise vim.fault.NotAuthenticated(object=this, privilegeId="System.View")
        return getattr(self, name)(this, *arguments)

    def RetrieveServiceContent(self, _this: Any) -> Any:
        managers = {
            "propertyCollector": Query("collector", self),
            "viewManager": vim.view.ViewManager("views", self),
            "searchIndex": vim.SearchIndex("search", self),
            "sessionManager": vim.SessionManager("sessions", self),
            "fileManager": vim.FileManager("files", self),
            "datastoreNamespaceManager": vim.DatastoreNamespaceManager("namespaces", self),
            "authorizationManager": vim.AuthorizationManager("rights", self),
        }
        about = vim.AboutInfo(apiType="VirtualCenter", fullName="Fake vCenter")
        return vim.ServiceInstanceContent(rootFolder=self.root, about=about, **managers)

    def Login(self, _this: Any, *_who: Any) -> Any:
        self.logged_in = True
        return vim.UserSession(key="key")

    def Logout(self, _this: Any) -> None:
        self.logged_in = False

    def HasPrivilegeOnEntities(self, _this: Any, entities: Any, _session: str, privileges: Any) -> Any:
        said = vim.AuthorizationManager
        return [
            said.EntityPrivilege(
                entity=entity,
                privAvailability=[
                    said.PrivilegeAvailability(privId=each, isGranted=each not in self.denied) for each in privileges
                ],
            )
            for entity in entities
        ]

    # Looking ------------------------------------------------------------------------------------

    def CreateContainerView(self, _this: Any, _under: Any, kinds: Any, _recursive: bool) -> Any:
        view = self.make(vim.view.ContainerView, f"view-{next(self._numbers)}")
        self.objects[view] = {"view": lambda: [ref for ref in self.objects if isinstance(ref, kinds[0])]}
        return view

    def DestroyView(self, this: Any) -> None:
        del self.objects[this]

    def FindByUuid(self, _this: Any, _datacenter: Any, uuid: str, _vms: bool, of_instance: bool) -> Any:
        path = "config.instanceUuid" if of_instance else "config.uuid"
        return next((ref for ref, has in self.objects.items() if has.get(path) == uuid), None)

    def FindChild(self, _this: Any, _folder: Any, name: str) -> Any:
        vms = ((ref, has) for ref, has in self.objects.items() if isinstance(ref, vim.VirtualMachine))
        return next((ref for ref, has in vms if has.get("name") == name), None)

    def RetrievePropertiesEx(self, _this: Any, specifications: Any, options: Any) -> Any:
        return self._paged(
            [Answer(obj=ref, propSet=_set(told), missingSet=[]) for ref, told in self._see(specifications)]
        )

    def ContinueRetrievePropertiesEx(self, _this: Any, token: str) -> Any:
        return self._paged(self._pages.pop(token))

    def _paged(self, found: list[Any]) -> Any:
        token = f"page-{next(self._numbers)}" if len(found) > self.page else None
        if token:
            self._pages[token] = found[self.page :]
        return Answer(objects=found[: self.page], token=token)

    def _see(self, specifications: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
        for specification in specifications:
            (wanted,) = specification.propSet
            for each in specification.objectSet:
                refs = self.objects[each.obj]["view"]() if each.selectSet else [each.obj]
                for ref in refs:
                    if ref in self.objects:
                        has = self.objects[ref]
                        yield ref, {path: has[path] for path in wanted.pathSet if has.get(path) is not None}

    # Hearing ------------------------------------------------------------------------------------

    def CreatePropertyCollector(self, _this: Any) -> Any:
        collector = Query(f"collector-{next(self._numbers)}", self)
        self._told[collector], self._filters[collector] = {}, []
        return collector

    def CreateFilter(self, this: Any, specification: Any, _partial: bool) -> Any:
        self._filters[this].append(specification)

    def DestroyPropertyCollector(self, this: Any) -> None:
        del self._told[this], self._filters[this]

    def WaitForUpdatesEx(self, this: Any, version: str, options: Any) -> Any:
        told = self._told[this]
        updates = []
        for ref, now in dict(self._see(self._filters[this])).items():
            before = told.get(ref)
            if now != before:
                changes = {
                    path: now.get(path) for path in {*now, *(before or ())} if now.get(path) != (before or {}).get(path)
                }
                updates.append(_update("enter" if before is None else "modify", ref, changes))
                told[ref] = dict(now)
        if not updates and version:
            time.sleep(0.01)  # who waits for a task that is stuck asks again and again
            return None
        more = len(updates) > self.page
        for update in updates[self.page :]:
            del told[update.obj]
        filters = [Answer(objectSet=updates[: self.page])]
        return Answer(version=str(next(self._numbers)), filterSet=filters, truncated=more)

    def CancelWaitForUpdates(self, _this: Any) -> None:
        """No call waits for long."""

    # Doing --------------------------------------------------------------------------------------

    def _task(self, name: str, do: Callable[[], Any] = lambda: None) -> Any:
        task = self.make(vim.Task, f"task-{next(self._numbers)}", **{"info.state": "running"})
        if name not in self.stuck:
            self._end(task, self.ending.get(name), do)
        return task

    def _end(self, task: Any, fault: Exception | None, do: Callable[[], Any]) -> None:
        try:
            if fault is not None:
                raise fault
            self.objects[task] = {"info.result": do(), "info.state": "success"}
        except vmodl.MethodFault as error:
            self.objects[task] = {"info.error": error, "info.state": "error"}

    def CancelTask(self, this: Any) -> None:
        self.objects[this] = {"info.error": vmodl.fault.RequestCanceled(), "info.state": "error"}

    def ReconfigVM_Task(self, this: Any, specification: Any) -> Any:
        change = lambda: self._reconfigure(this, specification)  # noqa: E731
        if this not in self.locked or not _touches_disc(specification):
            return self._task("ReconfigVM_Task", change)
        task = self.make(vim.Task, f"task-{next(self._numbers)}", **{"info.state": "running"})
        self.objects[this]["runtime.question"] = _question(self.question_text)

        def answered(choice: str) -> None:
            self.objects[this]["runtime.question"] = None
            refusal = None if choice == "0" else vim.fault.GenericVmConfigFault(reason="Connection control failed")
            self._end(task, refusal, change)

        self._waiting[this] = answered
        return task

    def AnswerVM(self, this: Any, _question: str, choice: str) -> None:
        self.answers.append(choice)
        self._waiting.pop(this)(choice)

    def _reconfigure(self, vm: Any, specification: Any) -> None:
        has = self.objects[vm]
        devices = {device.key: device for device in has["config.hardware.device"]}
        runs = has["runtime.powerState"] == "poweredOn"
        for each in specification.deviceChange:
            device, is_drive = each.device, isinstance(each.device, Device.VirtualCdrom)
            if is_drive and runs and each.operation == "add":
                raise vim.fault.InvalidDeviceSpec(deviceIndex=0)  # IDE cannot be hot-plugged
            path = getattr(device.backing, "fileName", None)
            if is_drive and path is not None and path not in self.files:
                raise vim.fault.FileNotFound(file=path)
            if device.key < 0:
                device.key = 3000 + next(self._numbers)
            devices[device.key] = device
        marks = {option.key: option for option in (*has["config.extraConfig"], *specification.extraConfig)}
        has |= {"config.hardware.device": list(devices.values()), "config.extraConfig": list(marks.values())}

    def PowerOnVM_Task(self, this: Any, _host: Any) -> Any:
        return self._task("PowerOnVM_Task", lambda: self.objects[this].update({"runtime.powerState": "poweredOn"}))

    def PowerOffVM_Task(self, this: Any) -> Any:
        return self._task("PowerOffVM_Task", lambda: self.objects[this].update({"runtime.powerState": "poweredOff"}))

    def ShutdownGuest(self, this: Any) -> None:
        """The guest takes no notice."""

    def RelocateVM_Task(self, this: Any, specification: Any, *_more: Any) -> Any:
        return self._task("RelocateVM_Task", lambda: self.objects[this].update({"runtime.host": specification.host}))

    def CloneVM_Task(self, this: Any, _folder: Any, name: str, _specification: Any) -> Any:
        return self._task("CloneVM_Task")

    def Destroy_Task(self, this: Any) -> Any:
        return self._task("Destroy_Task", lambda: self.objects.pop(this))

    # Files --------------------------------------------------------------------------------------

    def SearchDatastore_Task(self, _this: Any, _directory: str, specification: Any) -> Any:
        self.searched += specification.matchPattern
        return self._task("SearchDatastore_Task", self._search)

    def _search(self) -> Any:
        raise vim.fault.FileNotFound(file="extdhcp-configdrive")

    def MakeDirectory(self, _this: Any, name: str, _datacenter: Any, _parents: bool) -> None:
        """Taken."""

    def CreateDirectory(self, _this: Any, _datastore: Any, name: str, *_more: Any) -> str:
        return f"/vmfs/volumes/vsan/{name}"

    def DeleteDatastoreFile_Task(self, _this: Any, name: str, _datacenter: Any) -> Any:
        return self._task("DeleteDatastoreFile_Task", lambda: self.files.discard(name))


def ide() -> Any:
    return Device.VirtualIDEController(key=200, busNumber=0)


def drive(path: str | None = None, *, key: int = 3001, unit: int = 1) -> Any:
    cdrom = Device.VirtualCdrom
    backing = cdrom.IsoBackingInfo(fileName=path) if path else cdrom.RemotePassthroughBackingInfo(deviceName="")
    return cdrom(key=key, controllerKey=200, unitNumber=unit, backing=backing)


def disc(fake: FakeVsphere, name: str) -> Media:
    """A file that is there."""
    path = f"[store] extdhcp-configdrive/{name}"
    fake.files.add(path)
    return Media(name, path)


def _set(told: dict[str, Any]) -> list[Any]:
    return [Answer(name=path, val=value) for path, value in told.items()]


def _update(kind: str, ref: Any, changes: dict[str, Any]) -> Any:
    return Answer(kind=kind, obj=ref, changeSet=_set(changes), missingSet=[])


def _touches_disc(specification: Any) -> bool:
    return any(isinstance(each.device, Device.VirtualCdrom) for each in specification.deviceChange)


def _question(text: str) -> Any:
    choices = [vim.ElementDescription(key=key, label=label, summary="") for key, label in (("0", "Yes"), ("1", "No"))]
    return vim.vm.QuestionInfo(id="7", text=text, choice=vim.option.ChoiceOption(choiceInfo=choices, defaultIndex=1))
