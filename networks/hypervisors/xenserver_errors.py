"""What XenAPI's failures mean to the caller.

Source: the XenAPI reference's list of errors. A failure is a list: a code, then references and words of the pool,
which are left out of our texts.
"""

from collections.abc import Sequence

from networks.hypervisors.base import (
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

_LEAVES = "The host leaves the pool's service just now."
_HELD = "Another operation holds the VM."
_RAM = "The host has too little free memory."
_STORAGE_GONE = "The storage is not attached to the host: plug it there."
_FULL = "The storage is full: free some space on it."
_NO_TOOLS = "The guest lacks the tools or drivers that this needs."

_MEANINGS: dict[str, tuple[type[HypervisorError], str]] = {
    # The session
    "SESSION_AUTHENTICATION_FAILED": (CredentialsRefused, "The pool refuses the user or the password."),
    "USER_IS_NOT_LOCAL_SUPERUSER": (CredentialsRefused, "The pool refuses this user here."),
    "RBAC_PERMISSION_DENIED": (CredentialsRefused, "The pool does not let this user do that: give it another role."),
    "SESSION_INVALID": (TryAgainLater, "The pool ended the session."),
    "SESSION_NOT_REGISTERED": (TryAgainLater, "The pool ended the session."),
    "HOST_IS_SLAVE": (TryAgainLater, "The pool has another coordinator now."),
    # One host: the pool answers
    "CANNOT_CONTACT_HOST": (HostUnavailable, "The pool's coordinator cannot reach the host."),
    "HOST_OFFLINE": (HostUnavailable, "The pool's coordinator cannot reach the host."),
    "HOST_NOT_LIVE": (HostUnavailable, "The pool's coordinator cannot reach the host."),
    "HOST_STILL_BOOTING": (HostUnavailable, "The host is still booting."),
    "HOST_HAS_NO_MANAGEMENT_IP": (HostUnavailable, "The host has no management address now."),
    "HOST_IN_EMERGENCY_MODE": (AskTheOperator, "The host is in emergency mode: bring the pool's coordinator back."),
    "HOST_DISABLED": (HostUnavailable, "The host is in maintenance: enable it."),
    "HOST_DISABLED_UNTIL_REBOOT": (HostUnavailable, "The host is disabled until it is rebooted."),
    "HOST_NOT_ENOUGH_FREE_MEMORY": (AskTheOperator, _RAM),
    "HOST_NOT_ENOUGH_PCPUS": (AskTheOperator, "The host has fewer CPUs than the VM."),
    "NO_HOSTS_AVAILABLE": (AskTheOperator, "No host of the pool can run the VM."),
    "HOST_SHUTTING_DOWN": (HostUnavailable, _LEAVES),
    # Other work in the way
    "OTHER_OPERATION_IN_PROGRESS": (Busy, _HELD),
    "TOO_BUSY": (TryAgainLater, "The pool has too much to do."),
    "TOO_MANY_PENDING_TASKS": (TryAgainLater, "The pool has too much to do."),
    "TASK_CANCELLED": (TryAgainLater, "The operation was cancelled in the pool."),
    "DEVICE_DETACH_TIMEOUT": (Busy, "The guest does not let go of the device."),
    "DEVICE_DETACH_REJECTED": (Busy, "The guest does not let go of the device."),
    "DEVICE_ATTACH_TIMEOUT": (Busy, "The guest does not take the device."),
    "VBD_TRAY_LOCKED": (Busy, "The guest keeps its CD-ROM tray shut."),
    "VDI_IN_USE": (Busy, "The disk is in use."),
    "VDI_NOT_AVAILABLE": (Busy, "The disk is in use."),
    "VM_SHUTDOWN_TIMEOUT": (Busy, "The guest does not shut down."),
    "VM_MIGRATE_FAILED": (TryAgainLater, "The migration failed; the pool's log says why."),
    "INTERNAL_ERROR": (AskTheOperator, "The pool failed in itself: /var/log/xensource.log on its hosts says why."),
    # What is not there
    "HANDLE_INVALID": (NotFound, "The pool no longer knows an object of this operation."),
    "UUID_INVALID": (NotFound, "The pool does not know this UUID."),
    # VMs
    "VM_MISSING_PV_DRIVERS": (Refused, _NO_TOOLS),
    "VM_OLD_PV_DRIVERS": (Refused, _NO_TOOLS),
    "VM_LACKS_FEATURE": (Refused, _NO_TOOLS),
    "VM_LACKS_FEATURE_SHUTDOWN": (Refused, _NO_TOOLS),
    "VM_BAD_POWER_STATE": (Refused, "The VM is not in a state that allows this."),
    "VM_REQUIRES_SR": (Refused, "The host does not see a storage that the VM's disks or CD-ROMs are on."),
    "VM_REQUIRES_NETWORK": (NetworkMissing, "The host is not on a network of the VM: connect it there."),
    "VM_REQUIRES_VDI": (Refused, "A disk of the VM is missing."),
    "VM_INCOMPATIBLE_WITH_THIS_HOST": (Refused, "The host's CPU lacks features that the VM uses."),
    "VM_HOST_INCOMPATIBLE_VERSION": (Refused, "The host's version is older than the VM's."),
    "VM_IS_PROTECTED": (Refused, "High availability protects the VM: switch that off for it."),
    "VM_HAS_PCI_ATTACHED": (Refused, "The VM has a device of its host."),
    "OPERATION_NOT_ALLOWED": (Refused, "The pool does not allow this now."),
    "OPERATION_BLOCKED": (Refused, "An administrator has blocked this operation of the VM."),
    "LICENCE_RESTRICTION": (Refused, "The pool's licence does not include this."),
    "HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN": (Refused, "It would break the pool's failover plan."),
    # Devices and networks
    "DEVICE_ALREADY_EXISTS": (Refused, "The VM has a device at this place."),
    "INVALID_DEVICE": (Refused, "The VM has no free place for the device."),
    "VBD_NOT_EMPTY": (Refused, "The VM's CD-ROM holds another disc."),
    "MAC_INVALID": (Refused, "The pool does not take this MAC address."),
    "PIF_IS_NOT_PHYSICAL": (NetworkMissing, "The VLAN's network lies on no physical interface."),
    "PIF_VLAN_EXISTS": (Busy, "The VLAN is being made."),
    "NETWORK_ALREADY_CONNECTED": (Busy, "The VLAN is being made."),
    "VLAN_TAG_INVALID": (Refused, "The pool does not take this VLAN."),
    # Storage
    "SR_FULL": (StorageProblem, _FULL),
    "SR_NOT_ATTACHED": (StorageProblem, _STORAGE_GONE),
    "SR_HAS_NO_PBDS": (StorageProblem, _STORAGE_GONE),
    "SR_NO_PBDS": (StorageProblem, _STORAGE_GONE),
    "SR_BACKEND_FAILURE": (StorageProblem, "The storage failed; the host's SMlog says why."),
    "SR_OPERATION_NOT_SUPPORTED": (Refused, "The storage cannot do this."),
    "SR_UNKNOWN_DRIVER": (Refused, "The pool has no driver for such a storage."),
    "VDI_IO_ERROR": (StorageProblem, "The storage did not take all that was written: it is full, or broken."),
    "VDI_READONLY": (StorageProblem, "The storage is read-only."),
    "VDI_MISSING": (NotFound, "The disk's file is missing on its storage."),
    "VDI_CONTENT_ID_MISMATCH": (StorageProblem, "The storage failed; the host's SMlog says why."),
}

# The storage manager's own numbers: xapi-project/sm, XE_SR_ERRORCODES.xml.
_STORAGE_MANAGER: dict[str, tuple[type[HypervisorError], str]] = {
    "SR_BACKEND_FAILURE_44": (StorageProblem, _FULL),
    "SR_BACKEND_FAILURE_46": (NotFound, "The disk is missing on its storage."),
    "SR_BACKEND_FAILURE_144": (NotFound, "The disk's file is missing on its storage."),
    "SR_BACKEND_FAILURE_24": (Busy, "The disk is in use."),
}


def translate(details: Sequence[object]) -> HypervisorError:
    """Ours for a XenAPI failure, whose `details` are a code and its parameters. What is not known here is Refused."""
    code = str(details[0]) if details else ""
    known = _MEANINGS.get(code) or _STORAGE_MANAGER.get(code)
    if known is None and code.startswith("SR_BACKEND_FAILURE"):
        known = _MEANINGS["SR_BACKEND_FAILURE"]
    kind, text = known or (Refused, "The pool refused the operation.")
    return kind(f"{text} (XenAPI {_printable(code)})")


def _printable(code: str) -> str:
    """A code as the reference writes them; a pool that is none of the kind may send anything."""
    fits = 0 < len(code) <= 64 and all(letter.isascii() and (letter.isalnum() or letter == "_") for letter in code)
    return code if fits else "failure"
