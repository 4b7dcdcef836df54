"""What of a VM changes while it may run: the disc in our CD-ROM, and its NICs.

libvirt keeps two definitions of a running VM, the live one and that of its next start. Both follow.
"""

import time
from typing import Any

import libvirt

from networks.hypervisors import kvm_xml
from networks.hypervisors.base import (
    AskTheOperator,
    Busy,
    EndpointUnreachable,
    HypervisorError,
    Media,
    NicSpec,
    Refused,
    beat,
)
from networks.hypervisors.kvm_connection import Session, error_code

POLL_SECONDS = 0.5
LETTING_GO_SECONDS = 30.0  # a guest that lets go of a NIC at all does so in one or two

_TRAY_STAYS_SHUT = (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_INTERNAL_ERROR)
_STILL_UNPLUGGING = (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_ERR_INTERNAL_ERROR)


def live_xml(session: Session, domain: Any) -> str:
    """The live definition of a running VM; that of the next start when it is off."""
    text: str = session.do(domain.XMLDesc, 0)
    return text


def _next_xml(session: Session, domain: Any) -> str:
    text: str = session.do(domain.XMLDesc, libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    return text


def _keep(session: Session, domain: Any) -> None:
    """Give a running VM a definition of its next start: one that others migrated without --persistent has none."""
    if not session.do(domain.isPersistent):
        session.do(session.connection.defineXML, _next_xml(session, domain))


# Our CD-ROM -------------------------------------------------------------------------------------


def change_media(session: Session, domain: Any, media: Media | None, *, running: bool) -> None:
    path = None if media is None else media.path
    if running:
        _keep(session, domain)
        _change_live(session, domain, path)
    else:
        session.do(session.connection.defineXML, kvm_xml.with_media(_next_xml(session, domain), path))


def _change_live(session: Session, domain: Any, path: str | None) -> None:
    """libvirt opens the tray and waits; a guest that has mounted the disc may keep it shut."""
    now = live_xml(session, domain)
    if not kvm_xml.has_config_drive(now):
        raise Refused("The running VM has lost the CD-ROM of its config drive: it needs a stop and a start.")
    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
    force = libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE
    if kvm_xml.inserted_path(now) is None:
        # Migration emptied the drive when the target lacked the file; a guest that has it mounted keeps the
        # tray of the empty drive shut. By force nothing is lost.
        attempts = [flags | force]
    elif path is None:
        attempts = [flags, flags, flags | force]  # the guest gets read errors, but the drive must go
    else:
        attempts = [flags, flags]  # a new disc can wait
    drive = kvm_xml.config_drive(path)
    for attempt in attempts:
        try:
            session.do(domain.updateDeviceFlags, drive, attempt)
            return
        except HypervisorError as error:
            if error_code(error) not in _TRAY_STAYS_SHUT:
                raise
            shut = error
    raise Busy(f"The guest keeps its CD-ROM tray shut. (libvirt error {error_code(shut)})") from shut


def bytes_read(session: Session, domain: Any) -> int | None:
    """None for a VM that is off, and where the counters are not kept."""
    try:
        _requests, count, *_ = session.do(domain.blockStats, kvm_xml.CONFIG_DRIVE)
    except (Refused, AskTheOperator):
        return None
    return count if count >= 0 else None  # libvirt says -1 for what QEMU does not tell


# NICs -------------------------------------------------------------------------------------------


def plug(session: Session, domain: Any, nic: NicSpec, domain_type: str, *, running: bool) -> None:
    """Give the VM a NIC with this MAC; done already is success."""
    description = kvm_xml.nic(nic, domain_type)
    if running:
        _keep(session, domain)
        if nic.mac not in kvm_xml.macs(live_xml(session, domain)):
            _attach(session, domain, nic.mac, description)
    following = _next_xml(session, domain)
    if nic.mac not in kvm_xml.macs(following):
        session.do(session.connection.defineXML, kvm_xml.with_nic(following, nic, domain_type))


def _attach(session: Session, domain: Any, mac: str, description: str) -> None:
    try:
        session.do(domain.attachDeviceFlags, description, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except EndpointUnreachable:
        raise
    except HypervisorError:
        if mac not in kvm_xml.macs(live_xml(session, domain)):  # else somebody was faster
            raise


def unplug(session: Session, domain: Any, mac: str, *, running: bool) -> None:
    """Take the NIC with this MAC from the VM; gone already is success.

    The guest is asked, over ACPI, and has to agree. Raises Busy when it does not.
    """
    if running:
        _keep(session, domain)
        _detach(session, domain, mac)
    following = _next_xml(session, domain)
    if mac in kvm_xml.macs(following):
        session.do(session.connection.defineXML, kvm_xml.without_nic(following, mac))


def _detach(session: Session, domain: Any, mac: str) -> None:
    description = kvm_xml.nic_of(live_xml(session, domain), mac)
    if description is None:
        return
    try:
        session.do(domain.detachDeviceFlags, description, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except EndpointUnreachable:
        raise
    except HypervisorError as error:
        if mac not in kvm_xml.macs(live_xml(session, domain)):
            return
        if error_code(error) not in _STILL_UNPLUGGING:  # else it was asked before, and has not answered yet
            raise
    give_up = min(time.monotonic() + LETTING_GO_SECONDS, session.deadline - 2 * POLL_SECONDS)
    while mac in kvm_xml.macs(live_xml(session, domain)):
        if time.monotonic() > give_up:
            raise Busy("The guest does not let go of the NIC.")
        time.sleep(POLL_SECONDS)
        beat()
