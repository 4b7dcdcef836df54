"""A host's storage pools and volumes, and the bytes of config drives."""

import contextlib
from typing import Any

import libvirt

from networks.hypervisors import kvm_xml
from networks.hypervisors.base import (
    AskTheOperator,
    Busy,
    DeadlineExceeded,
    DoNotTryAgain,
    EndpointUnreachable,
    HypervisorError,
    ImageRoot,
    NotFound,
    Refused,
    StorageProblem,
)
from networks.hypervisors.kvm_connection import Session, error_code

MEDIA_POOL = "extdhcp-configdrive"
MEDIA_DIRECTORY = "/var/lib/libvirt/extdhcp-configdrive"
MEDIA_MAX_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 256 * 1024


def active_pool(session: Session, name: str) -> Any:
    """A pool that is in use. Raises StorageProblem."""
    pool = session.do(session.connection.storagePoolLookupByName, kvm_xml.pool_name(name))
    if not session.do(pool.isActive):
        raise StorageProblem(f"Storage pool {name} is not started on the host.")
    return pool


def media_pool(session: Session) -> Any | None:
    try:
        return active_pool(session, MEDIA_POOL)
    except StorageProblem as error:
        if error_code(error) == libvirt.VIR_ERR_NO_STORAGE_POOL:
            return None
        raise


def ensure_media_pool(session: Session) -> Any:
    try:
        return active_pool(session, MEDIA_POOL)
    except StorageProblem:
        pass  # not there, or not started
    try:
        pool = session.do(session.connection.storagePoolLookupByName, MEDIA_POOL)
    except StorageProblem:
        description = kvm_xml.media_pool(MEDIA_POOL, MEDIA_DIRECTORY)
        with contextlib.suppress(DoNotTryAgain):  # another process was faster
            session.do(session.connection.storagePoolDefineXML, description, 0)
        pool = session.do(session.connection.storagePoolLookupByName, MEDIA_POOL)
        session.do(pool.build, 0)
        session.do(pool.setAutostart, 1)
    with contextlib.suppress(DoNotTryAgain):  # another process was faster
        session.do(pool.create, 0)
    return active_pool(session, MEDIA_POOL)


def find_volume(session: Session, pool: Any, name: str, *, refresh: bool = False) -> Any | None:
    """`refresh` has libvirt look again for files that came without it."""
    try:
        return session.do(pool.storageVolLookupByName, name)
    except NotFound:
        if not refresh:
            return None
    refresh_pool(session, pool)
    return find_volume(session, pool, name)


def refresh_pool(session: Session, pool: Any) -> None:
    with contextlib.suppress(DoNotTryAgain, AskTheOperator):  # refused while another volume is being written
        session.do(pool.refresh, 0)


def delete_volume(session: Session, pool: Any, name: str, *, refresh: bool = False) -> None:
    volume = find_volume(session, pool, name, refresh=refresh)
    if volume is None:
        return
    try:
        session.do(volume.delete, 0)
    except (Refused, AskTheOperator) as error:
        if error_code(error) == libvirt.VIR_ERR_OPERATION_INVALID:
            raise Busy(f"Volume {name} is being written on the host.") from error
        refresh_pool(session, pool)
        if find_volume(session, pool, name) is not None:  # else the file had been removed behind libvirt's back
            raise


def image_facts(session: Session, pool: Any, image: str) -> kvm_xml.VolumeFacts | None:
    volume = find_volume(session, pool, image, refresh=True)
    return None if volume is None else kvm_xml.volume_facts(session.do(volume.XMLDesc, 0))


def new_volume(session: Session, pool: Any, name: str, description: str) -> Any:
    """A volume under this name that is new: an upload into one that is there would leave the old one's
    tail, and an old password in it.
    """
    delete_volume(session, pool, name)
    try:
        return session.do(pool.createXML, description, 0)
    except EndpointUnreachable:
        raise
    except HypervisorError:
        # A file that libvirt has not heard of may be in the way.
        delete_volume(session, pool, name, refresh=True)
        return session.do(pool.createXML, description, 0)


def fill(session: Session, volume: Any, content: bytes) -> None:
    try:
        session.do(_upload, session.connection, volume, content)
    except DeadlineExceeded:
        raise  # the thread left behind holds the stream: the volume goes with a later `remove`
    except HypervisorError:
        with contextlib.suppress(HypervisorError):
            session.do(volume.delete, 0)
        raise


def root_path(session: Session, root: ImageRoot) -> str:
    pool = active_pool(session, root.pool)
    volume = find_volume(session, pool, kvm_xml.volume_name(root.volume), refresh=True)
    if volume is None:
        raise NotFound(f"Storage pool {root.pool} has no volume {root.volume}.")
    path: str = session.do(volume.path)
    return path


def _upload(connection: Any, volume: Any, content: bytes) -> None:
    view = memoryview(content)
    sent = 0

    def next_chunk(_stream: Any, size: int, _data: object) -> bytes:
        nonlocal sent
        chunk = bytes(view[sent : sent + size])
        sent += len(chunk)
        return chunk

    stream = connection.newStream(0)
    try:
        volume.upload(stream, 0, len(content), 0)
        stream.sendAll(next_chunk, None)
        stream.finish()
    except BaseException:
        _abort(stream)
        raise


def download(connection: Any, volume: Any) -> bytes:
    stream = connection.newStream(0)
    content = bytearray()
    try:
        volume.download(stream, 0, 0, 0)
        while chunk := stream.recv(CHUNK_BYTES):
            content += chunk
            if len(content) > MEDIA_MAX_BYTES:
                raise Refused("The volume is larger than any config drive.")
        stream.finish()
    except BaseException:
        _abort(stream)
        raise
    return bytes(content)


def _abort(stream: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        stream.abort()
