"""What a host is asked directly. Not modelled: updates, plugins, power, joining and leaving a pool."""

from datetime import UTC, datetime

from . import vms
from .calls import Call, message
from .errors import XenError


@message("host.compute_free_memory", "host")
def compute_free_memory(call: Call, host: str) -> int:
    return vms.free_memory(call.db, host)


@message("host.get_servertime", "host")
def servertime(call: Call, host: str) -> datetime:
    return datetime.now(UTC)


@message("host.get_server_certificate", "host")
def server_certificate(call: Call, host: str) -> str:
    row = call.db.get("host", host)
    if not call.db.get("host_metrics", row["metrics"])["live"]:
        raise XenError("HOST_OFFLINE", host)
    return call.xen.certificates[host].pem


@message("host.disable", "host")
def disable(call: Call, host: str) -> None:
    call.db.set("host", host, enabled=False)


@message("host.enable", "host")
def enable(call: Call, host: str) -> None:
    call.db.set("host", host, enabled=True)
