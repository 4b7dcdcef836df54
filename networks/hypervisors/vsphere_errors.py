"""vSphere's faults made ours. Their texts, which hold paths of the host, are left out."""

import re

from networks.hypervisors.base import (
    AgentAbsent,
    AskTheOperator,
    Busy,
    CredentialsRefused,
    HostUnavailable,
    HypervisorError,
    NetworkMissing,
    NotFound,
    Refused,
    StorageProblem,
    TryAgainLater,
)
from networks.hypervisors.vsphere_types import vim, vmodl


class SessionExpired(CredentialsRefused):
    """The session is not known any more: log in again, once."""


class OutOfStep(TryAgainLater):
    """vSphere has forgotten what it told us last: ask for everything again."""


# The first that fits decides: a fault stands before those it derives from.
_MEANINGS: tuple[tuple[type[Exception], type[HypervisorError], str], ...] = (
    (vim.fault.InvalidLogin, CredentialsRefused, "vSphere refuses the user or the password."),
    (vim.fault.PasswordExpired, CredentialsRefused, "The password of this user has expired in vSphere."),
    (vim.fault.NotAuthenticated, SessionExpired, "vSphere does not know our session any more."),
    (vim.fault.RestrictedByAdministrator, CredentialsRefused, "vSphere's administrator does not allow this."),
    (vim.fault.NoPermission, CredentialsRefused, "The user lacks a privilege in vSphere."),
    (vmodl.fault.SecurityError, CredentialsRefused, "vSphere does not let this user do that."),
    (vmodl.query.InvalidCollectorVersion, OutOfStep, "vSphere has forgotten what it told last."),
    (vmodl.fault.ManagedObjectNotFound, NotFound, "It is not there any more."),
    (vim.fault.FileLocked, Busy, "A running VM holds the file."),
    (vim.fault.TaskInProgress, Busy, "Another task holds the VM."),
    (vim.fault.MethodDisabled, Busy, "vSphere does not allow this now: another task holds the VM."),
    (vim.fault.ConcurrentAccess, Busy, "Somebody else is changing the VM."),
    (vim.fault.ResourceInUse, Busy, "It is in use."),
    (vim.fault.Timedout, Busy, "A task in vSphere did not end in time."),
    (vmodl.fault.RequestCanceled, TryAgainLater, "The task was cancelled in vSphere."),
    (vim.fault.NoDiskSpace, StorageProblem, "The datastore is full: free some space on it."),
    (vim.fault.InaccessibleDatastore, StorageProblem, "The host cannot reach the datastore."),
    (vim.fault.InvalidDatastore, StorageProblem, "The host cannot use the datastore."),
    (vim.fault.FileNotFound, NotFound, "The datastore has no such file."),
    (vim.fault.FileAlreadyExists, Refused, "A file of this name is there already."),
    (vim.fault.CannotCreateFile, StorageProblem, "The datastore takes no file there."),
    (vim.fault.FileFault, StorageProblem, "The file cannot be used; the task in vSphere says why."),
    (vim.fault.CannotAccessNetwork, NetworkMissing, "The host cannot join the network."),
    (vim.fault.CannotAccessVmDevice, Refused, "A device of the VM cannot be had on that host."),
    (vim.fault.DuplicateName, Refused, "Something in vSphere has this name already."),
    (vim.fault.AlreadyExists, Refused, "It is there already."),
    (vim.fault.NotFound, NotFound, "vSphere does not have it."),
    (vim.fault.ToolsUnavailable, AgentAbsent, "VMware Tools do not run in the guest."),
    (vmodl.fault.HostNotConnected, HostUnavailable, "vCenter has lost the host."),
    (vmodl.fault.HostNotReachable, HostUnavailable, "vCenter cannot reach the host."),
    (vmodl.fault.HostCommunication, HostUnavailable, "vCenter cannot talk to the host."),
    (vim.fault.InvalidHostState, HostUnavailable, "The host is not in a state that allows this."),
    (vim.fault.InsufficientResourcesFault, AskTheOperator, "The host has not enough CPU or memory left."),
    (vim.fault.InvalidState, Refused, "The VM is not in a state that allows this."),
    (vim.fault.InvalidDeviceSpec, Refused, "The VM cannot be given such a device."),
    (vim.fault.VmConfigFault, Refused, "The VM cannot be changed like this."),
    (vim.fault.MigrationFault, Refused, "The VM cannot be moved to that host; the task in vSphere says why."),
    (vmodl.fault.NotSupported, Refused, "vSphere cannot do this."),
    (vmodl.fault.MethodNotFound, Refused, "This version of vSphere cannot do this."),
    (vmodl.fault.NotImplemented, Refused, "This version of vSphere cannot do this."),
    (vmodl.fault.InvalidArgument, Refused, "vSphere does not accept the request."),
    (vmodl.fault.InvalidRequest, Refused, "vSphere does not accept the request."),
)


def translate(fault: BaseException) -> HypervisorError:
    """Ours for a fault of the server; the fault's own name stays, for whoever looks it up."""
    name = type(fault).__name__.rpartition(".")[2]
    for kind, ours, text in _MEANINGS:
        if isinstance(fault, kind):
            return ours(f"{text} (vSphere fault {name}{_privilege(fault)})")
    return AskTheOperator(f"It failed in vSphere; the task or the event there says why. (vSphere fault {name})")


def _privilege(fault: BaseException) -> str:
    """Which one the user lacks, if that is the fault."""
    privilege = getattr(fault, "privilegeId", None) or ""
    return f": {privilege}" if re.fullmatch(r"[A-Za-z0-9.]{1,100}", privilege) else ""
