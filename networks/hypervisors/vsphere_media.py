"""Config drives' ISOs in a directory of a datastore, over HTTPS, which vCenter passes on to a host.

vSAN and vVols have no directories at their top; there, one is made through the manager of their name spaces.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from networks.hypervisors.base import Busy, HypervisorError, MediaFile, NotFound, Refused, StorageProblem
from networks.hypervisors.bounded import StatusRefused
from networks.hypervisors.vsphere_names import is_media_name, media_path
from networks.hypervisors.vsphere_places import Datastore, Place, datastore
from networks.hypervisors.vsphere_session import Session
from networks.hypervisors.vsphere_tasks import finish
from networks.hypervisors.vsphere_types import vim

MEDIA_MAX_BYTES = 64 * 1024 * 1024
_WITHOUT_DIRECTORIES = ("vsan", "vvol")


def place(session: Session, there: Place, storage: str, name: str, content: bytes, deadline: float) -> str:
    """Write a new file, and give its path. Raises Refused, StorageProblem."""
    store = datastore(session, there, storage)
    if not store.is_shared and len(session.find_all(vim.HostSystem, "name")) > 1:
        # A VM that somebody moves to another host must find its drive there.
        raise Refused(f"Only host {there.name} sees datastore {storage}: config drives need one that all hosts mount.")
    if len(content) > store.free:
        raise StorageProblem(f"Datastore {storage} is full: free some space on it.")
    files = _files(session, store, name)
    if files is None:
        _make_directory(session, there, store)
    elif files:
        raise Refused(f"Datastore {storage} has a file {name} already.")
    try:
        with _over_https(storage):
            session.put(_url_path(name), _query(there, store), content, deadline)
    except HypervisorError:
        with contextlib.suppress(HypervisorError):  # what of it has arrived
            remove(session, there, storage, name)
        raise
    return str(media_path(store.name, name))


def read(session: Session, there: Place, storage: str, name: str, deadline: float) -> bytes:
    """Raises NotFound."""
    store = datastore(session, there, storage)
    with _over_https(storage):
        return session.get(_url_path(name), _query(there, store), deadline, most=MEDIA_MAX_BYTES)


def remove(session: Session, there: Place, storage: str, name: str) -> None:
    """Gone already is success. Raises Busy while a running VM has the disc in its drive."""
    store = datastore(session, there, storage)
    path = str(media_path(store.name, name))
    with contextlib.suppress(NotFound):
        finish(session, session.do(session.content.fileManager.DeleteDatastoreFile_Task, path, there.datacenter))


def listed(session: Session, there: Place, storage: str, name: str) -> list[MediaFile]:
    """All of them, or only the one of that name."""
    store = datastore(session, there, storage)
    found = _files(session, store, name or "*.iso") or []
    files = [MediaFile(file.path, file.fileSize or 0) for file in found if is_media_name(file.path)]
    return sorted(files, key=lambda file: file.name)


def _files(session: Session, store: Datastore, pattern: str) -> list[Any] | None:
    """The files of our directory; None when there is no directory."""
    specification = vim.host.DatastoreBrowser.SearchSpec(
        matchPattern=[pattern],
        details=vim.host.DatastoreBrowser.FileInfo.Details(
            fileSize=True, fileType=False, modification=False, fileOwner=False
        ),
    )
    directory = str(media_path(store.name))
    task = session.do(store.browser.SearchDatastore_Task, directory, specification)
    try:
        return list(finish(session, task).file)
    except NotFound:
        return None


def _make_directory(session: Session, there: Place, store: Datastore) -> None:
    path = media_path(store.name)
    try:
        if store.kind.casefold() in _WITHOUT_DIRECTORIES:
            session.do(session.content.datastoreNamespaceManager.CreateDirectory, store.ref, path.path)
        else:
            session.do(session.content.fileManager.MakeDirectory, str(path), there.datacenter, True)
    except Refused:
        if _files(session, store, "*") is None:  # else somebody was faster
            raise


@contextlib.contextmanager
def _over_https(storage: str) -> Iterator[None]:
    try:
        yield
    except StatusRefused as error:
        if error.status == 423:
            raise Busy("The file is locked on its datastore.") from error
        raise StorageProblem(
            f"Datastore {storage} could not be written or read (HTTP status {error.status}): "
            "is it full, or read-only? vSphere's events say more."
        ) from error


def _url_path(name: str) -> str:
    return f"/folder/{media_path('', name).path}"


def _query(there: Place, store: Datastore) -> dict[str, str]:
    return {"dcPath": there.datacenter_path, "dsName": store.name}
