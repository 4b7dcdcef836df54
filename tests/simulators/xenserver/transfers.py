"""Raw disks over HTTP: `PUT /import_raw_vdi` and `GET /export_raw_vdi`.

The answer to a PUT is sent before its body is read: whether the data is stored is told by the task alone.
Source: ocaml/xapi/import_raw_vdi.ml, https://github.com/xapi-project/xen-api. Not modelled: formats other than raw, and
log-in by password.
"""

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from . import devices, storage
from .database import Row
from .errors import XenError

if TYPE_CHECKING:
    from .server import Handler
    from .simulator import XenServer

_CHUNK = 65536


def take(xen: "XenServer", host: str, request: "Handler") -> None:
    """Answer a PUT."""
    found = _asked_for(xen, host, request)
    if found is None:
        return
    query, vdi = found
    task = query.get("task_id") or xen.tasks.create("VDI.import")
    if query.get("format", "raw") != "raw":
        xen.tasks.fail(task, XenError("INTERNAL_ERROR", f"Unknown format {query['format']}"))
        request.refuse(404)
        return
    if request.headers.get("Transfer-Encoding"):
        xen.tasks.fail(task, _caught("import code cannot handle encoding: chunked"))
        request.refuse(403)
        return
    try:
        xen.faults.happen("PUT /import_raw_vdi")
        _assert_writable(xen, vdi)
    except XenError as error:
        xen.tasks.fail(task, error)
        request.refuse(500)
        return
    request.wfile.write(_head(task))
    try:
        _store(xen, vdi, request)
    except XenError as error:
        xen.tasks.fail(task, error)
        request.drain()
    else:
        xen.run_later(xen.pace.get("import", 0.0), lambda: xen.tasks.succeed(task))


def give(xen: "XenServer", host: str, request: "Handler") -> None:
    """Answer a GET: all of the disk, without a length; it ends with the connection."""
    found = _asked_for(xen, host, request)
    if found is None:
        return
    query, vdi = found
    task = query.get("task_id") or xen.tasks.create("VDI.export")
    request.wfile.write(_head(task))
    file = xen.disks.file(vdi)
    left = vdi.number("virtual_size")
    with file.open("rb") if file.exists() else contextlib.nullcontext() as source:
        while left:
            size = min(left, _CHUNK)
            chunk = source.read(size) if source else b""
            request.wfile.write(chunk.ljust(size, b"\0"))
            left -= size
    xen.tasks.succeed(task)


def _asked_for(xen: "XenServer", host: str, request: "Handler") -> tuple[dict[str, str], Row] | None:
    """The query and the disk; None when it was refused or sent elsewhere."""
    query = {name: values[-1] for name, values in parse_qs(urlsplit(request.path).query).items()}
    try:
        session = xen.sessions.check(query.get("session_id", ""))
    except XenError:
        request.refuse(401, 'WWW-Authenticate: Basic realm="XenServer"')
        return None
    try:
        xen.sessions.check_role(session, f"http/{request.command}_{urlsplit(request.path).path[1:]}")
    except XenError:
        request.refuse(403)
        return None
    wanted = query.get("vdi", "")
    try:
        vdi = xen.db.get("VDI", wanted) if wanted.startswith("OpaqueRef:") else xen.db.by_uuid("VDI", wanted)
    except XenError:
        request.refuse(500)
        return None
    if storage.reaches(xen.db, host, vdi.text("SR")):
        return query, vdi
    _send_elsewhere(xen, vdi, request)
    return None


def _send_elsewhere(xen: "XenServer", vdi: Row, request: "Handler") -> None:
    """To a host that reaches the disk."""
    hosts = [row for row in xen.db.rows("host") if storage.reaches(xen.db, row.ref, vdi.text("SR"))]
    if not hosts:
        request.refuse(500)
        return
    # A real pool's hosts all listen on 443, so it names no port.
    request.refuse(302, f"Location: https://{hosts[0]['address']}:{xen.port}{request.path}")


def _assert_writable(xen: "XenServer", vdi: Row) -> None:
    if devices.used_vdi(xen.db, vdi.ref):
        raise XenError("VDI_IN_USE", vdi.ref, "import")
    if vdi["read_only"]:
        raise XenError("VDI_READONLY", vdi.ref)


def _head(task: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "Connection: close", f"task-id: {task}", "Content-Type: application/octet-stream"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _store(xen: "XenServer", vdi: Row, request: "Handler") -> None:
    """Write what comes into the disk, from its start. Raises XenError for what does not fit or does not come."""
    length = request.headers.get("Content-Length")
    if length is None:
        raise _caught("End_of_file")
    size = int(length)
    sr = xen.db.get("SR", vdi["SR"])
    grows = sr["type"] == "iso"  # its file was made of holes
    file = xen.disks.file(vdi)
    stored = 0
    with file.open("r+b" if file.exists() else "w+b") as target:
        while stored < size:
            chunk = request.rfile.read(min(_CHUNK, size - stored))
            if not chunk:
                raise _caught("End_of_file")
            stored += len(chunk)
            if stored > vdi.number("virtual_size") or (grows and stored > storage.free_space(sr)):
                raise XenError("VDI_IO_ERROR", "Device I/O errors")
            target.write(chunk)
    if grows:
        storage.took(xen.db, vdi.ref, stored)


def _caught(words: str) -> XenError:
    return XenError("INTERNAL_ERROR", f"Caught exception: {words}")
