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
    MediaFile,
    NotFound,
    Refused,
    StorageProblem,
    StorageRoom,
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
        raise StorageProblem(f"Storage pool {name} is not started on the host: start it there.")
    return pool


def cache_pool(session: Session) -> Any | None:
    """The pool of the host's own cache, if it was ever made."""
    try:
        return active_pool(session, MEDIA_POOL)
    except StorageProblem as error:
        if error_code(error) == libvirt.VIR_ERR_NO_STORAGE_POOL:
            return None
        raise


def media_pool(session: Session, storage: str) -> Any:
    """The pool of config drives in `storage`, made when this host does not have it.

    Raises StorageProblem, and Refused for a storage that holds no files.
    """
    if not storage:
        return _dir_pool(session, MEDIA_POOL, MEDIA_DIRECTORY, autostart=True)
    # Asked each time: what is not mounted must not be written under.
    primary = active_pool(session, storage)
    directory = kvm_xml.pool_directory(session.do(primary.XMLDesc, 0))
    if directory is None:
        raise Refused(f"Storage pool {storage} holds no files.")
    directory = f"{directory}/{MEDIA_POOL}"
    # Not started by libvirt, which does not know that the other pool has to be there first.
    pool = _dir_pool(session, f"{MEDIA_POOL}-{storage}", directory, autostart=False)
    if kvm_xml.pool_directory(session.do(pool.XMLDesc, 0)) != directory:
        raise StorageProblem(
            f"Storage pool {MEDIA_POOL}-{storage} on the host does not lie in {directory}: "
            "destroy and undefine that pool there, and it will be made anew. Its files stay."
        )
    return pool


def _dir_pool(session: Session, name: str, directory: str, *, autostart: bool) -> Any:
    try:
        return active_pool(session, name)
    except StorageProblem:
        pass  # not there, or not started
    with contextlib.suppress(DoNotTryAgain):  # another process was faster
        pool = _defined_pool(session, name, directory, autostart=autostart)
        session.do(pool.build, 0)  # makes the directory, unless it is there
        session.do(pool.create, 0)
    return active_pool(session, name)


def _defined_pool(session: Session, name: str, directory: str, *, autostart: bool) -> Any:
    try:
        return session.do(session.connection.storagePoolLookupByName, kvm_xml.pool_name(name))
    except StorageProblem:
        pool = session.do(session.connection.storagePoolDefineXML, kvm_xml.media_pool(name, directory), 0)
        if autostart:
            session.do(pool.setAutostart, 1)
        return pool


def room(session: Session, pool: Any) -> StorageRoom:
    # Overlays grow without libvirt, which knows of the file system what it was when it looked last.
    refresh_pool(session, pool)
    _, total, _, free = session.do(pool.info)
    return StorageRoom(total, free)


def find_volume(session: Session, pool: Any, name: str, *, refresh: bool = False) -> Any | None:
    """`refresh` has libvirt look again for files that came without it."""
    try:
        return session.do(pool.storageVolLookupByName, name)
    except NotFound:
        if not refresh:
            return None
    refresh_pool(session, pool)
    return find_volume(session, pool, name)


def sees(session: Session, path: str) -> bool:
    """Whether one of the host's pools has this volume. One that another host made, libvirt has to look for."""
    for look_again in (True, False):
        try:
            session.do(session.connection.storageVolLookupByPath, path)
            return True
        except NotFound:
            if look_again:
                _refresh_pools_in(session, path.rpartition("/")[0])
    return False


def _refresh_pools_in(session: Session, directory: str) -> None:
    active = libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE
    for pool in session.do(session.connection.listAllStoragePools, active):
        if kvm_xml.pool_directory(session.do(pool.XMLDesc, 0)) == directory:
            refresh_pool(session, pool)


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


def list_media(session: Session, pool: Any, name: str = "") -> list[MediaFile]:
    """All of them, or only the one of that name."""
    refresh_pool(session, pool)
    found = []
    for volume in session.do(pool.listAllVolumes, 0):
        if kvm_xml.is_media_name(volume.name()) and name in ("", volume.name()):
            with contextlib.suppress(NotFound):  # it went while we listed
                _type, size, _allocated = session.do(volume.info)
                found.append(MediaFile(volume.name(), size))
    return sorted(found, key=lambda file: file.name)


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
        # A file that libvirt has not heard of may be in the way. (libvirt creates with O_EXCL, so it
        # never writes into, or through, what lies there.)
        delete_volume(session, pool, name, refresh=True)
    try:
        return session.do(pool.createXML, description, 0)
    except Refused as error:
        # A FIFO or a device, which libvirt does not see as a volume and so cannot remove.
        raise StorageProblem(f"Something that is no file lies under the name {name}: remove it.") from error


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


def read_volume(session: Session, pool: Any, name: str) -> bytes | None:
    """None when there is no such file, whatever libvirt remembers."""
    volume = find_volume(session, pool, name, refresh=True)
    if volume is None:
        return None
    try:
        content: bytes = session.do(_download, session.connection, volume)
    except AskTheOperator:
        refresh_pool(session, pool)
        if find_volume(session, pool, name) is not None:  # else the file had been removed behind libvirt's back
            raise
        return None
    return content


def _download(connection: Any, volume: Any) -> bytes:
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
