"""Sessions: who is logged in, for how long, and what a role allows.

Not modelled: external authentication, subjects, the limit of 500 sessions per user that is not root, and `last_active`,
which stays that of the log-in.
"""

import time
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from .calls import Call, message, message_names
from .errors import XenError

if TYPE_CHECKING:
    from .simulator import XenServer

IDLE_SECONDS = 24 * 3600.0
SESSIONS_PER_ORIGINATOR = 500

# What each role may do, as the beginnings of names in lower case; "" is everything. Four of xapi's seven roles.
_READING = ("event.", "session.", "task.")
_OPERATING = ("vm.start", "vm.resume", "vm.suspend", "vm.clean_", "vm.hard_", "vbd.insert", "vbd.eject")
_ADMINISTERING = ("vm.", "vbd.", "vif.", "vdi.", "http/put_import_raw_vdi", "http/get_export_raw_vdi")
ROLES: dict[str, tuple[str, ...]] = {
    "pool-admin": ("",),
    "vm-admin": (*_READING, *_ADMINISTERING),
    "vm-operator": (*_READING, *_OPERATING),
    "read-only": _READING,
}
HTTP_PERMISSIONS = ("http/put_import_raw_vdi", "http/get_export_raw_vdi")


@cache
def permissions(role: str) -> tuple[str, ...]:
    """The permissions of a role, by xapi's names for them: messages in lower case, and what is done by plain HTTP."""
    names = [name.lower() for name in (*message_names(), "event.from")]
    return tuple(
        name for name in sorted({*names, *HTTP_PERMISSIONS}) if ".get_" in name or name.startswith(ROLES[role])
    )


class Sessions:
    """Log-ins, the longest unused first. `users` gives each name its password and role."""

    def __init__(self, xen: "XenServer") -> None:
        self._xen = xen
        self.users = {xen.username: (xen.password, "pool-admin")}
        self.limit = SESSIONS_PER_ORIGINATOR
        self._last_used: dict[str, float] = {}

    def log_in(self, username: str, password: str, originator: str) -> str:
        known, role = self.users.get(username, ("", ""))
        if not known or known != password:
            raise XenError("SESSION_AUTHENTICATION_FAILED", username, "Authentication failure")
        with self._xen.db.lock:
            self._make_room(originator)
            now = datetime.now(UTC)
            ref = self._xen.db.create(
                "session",
                this_host=self._xen.master.ref,
                last_active=now,
                validation_time=now,
                auth_user_name=username,
                is_local_superuser=username == self._xen.username,
                rbac_permissions=() if username == self._xen.username else permissions(role),
                originator=originator,
            )
            self._last_used[ref] = time.monotonic()
            return ref

    def _make_room(self, originator: str) -> None:
        """Whoever logs in too often pushes out his own oldest session."""
        own = [row.ref for row in self._xen.db.where("session", originator=originator)]
        own.sort(key=lambda ref: self._last_used[ref])
        for ref in own[: max(0, len(own) + 1 - self.limit)]:
            self.end(ref)

    def end(self, ref: str) -> None:
        self._last_used.pop(ref, None)
        self._xen.db.delete("session", ref)

    def end_all(self) -> None:
        with self._xen.db.lock:
            for row in self._xen.db.rows("session"):
                self.end(row.ref)

    def check(self, ref: object) -> str:
        """Raises SESSION_INVALID."""
        with self._xen.db.lock:
            used = self._last_used.get(str(ref))
            now = time.monotonic()
            if used is None or now - used > IDLE_SECONDS:
                self.end(str(ref))
                raise XenError("SESSION_INVALID", ref)
            self._last_used[str(ref)] = now
            return str(ref)

    def check_role(self, ref: str, name: str) -> None:
        """Raises RBAC_PERMISSION_DENIED. Whoever is root may do everything, and has no list of it."""
        row = self._xen.db.get("session", ref)
        known = name.lower() in permissions("pool-admin")
        if known and not row["is_local_superuser"] and name.lower() not in row.refs("rbac_permissions"):
            raise XenError("RBAC_PERMISSION_DENIED", name.lower(), "No permission in user session")


@message("session.logout")
def log_out(call: Call) -> None:
    call.xen.sessions.end(call.session)


@message("session.get_this_host", "session")
def this_host(call: Call, session: str) -> object:
    return call.db.get("session", session)["this_host"]


@message("session.get_all_subject_sids")
def all_subject_sids(call: Call) -> list[str]:
    return []
