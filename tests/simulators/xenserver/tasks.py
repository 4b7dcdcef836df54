"""Tasks: what `Async.` makes of a call, and what a raw import reports to."""

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from . import calls, wire
from .calls import Call, message
from .errors import XenError

if TYPE_CHECKING:
    from .simulator import XenServer


class Tasks:
    """The tasks of a pool; each that runs here has a flag that tells it to stop."""

    def __init__(self, xen: "XenServer") -> None:
        self._xen = xen
        self._flags: dict[str, threading.Event] = {}

    def create(self, label: str, description: str = "") -> str:
        ref = self._xen.db.create(
            "task",
            name_label=label,
            name_description=description,
            created=datetime.now(UTC),
            resident_on=self._xen.master.ref,
            allowed_operations=("cancel", "destroy"),
        )
        self._flags[ref] = threading.Event()
        return ref

    def start(self, call: Call, name: str, parameters: list[object]) -> str:
        """Run the message in a thread of its own; its task, at once."""
        calls.check(call, name, parameters)
        ref = self.create(f"Async.{name}")
        own = Call(self._xen, call.session, ref, self._flags[ref].wait)
        self._xen.run_in_background(lambda: self._run(ref, own, name, parameters))
        return ref

    def _run(self, ref: str, call: Call, name: str, parameters: list[object]) -> None:
        try:
            value = calls.run(call, name, parameters)
        except XenError as error:
            self.fail(ref, error)
        else:
            # What a message answers with stands in its task as the XML that would have been sent.
            self.succeed(ref, "" if value is None else wire.value_xml(value))

    def succeed(self, ref: str, result: str = "") -> None:
        self._finish(ref, status="success", progress=1.0, result=result)

    def fail(self, ref: str, error: XenError) -> None:
        status = "cancelled" if error.description[0] == "TASK_CANCELLED" else "failure"
        self._finish(ref, status=status, progress=1.0, error_info=tuple(error.description))

    def _finish(self, ref: str, **values: object) -> None:
        with self._xen.db.lock:
            if self._xen.db.find("task", ref) is not None:
                self._xen.db.set("task", ref, finished=datetime.now(UTC), allowed_operations=("destroy",), **values)
            self._flags.pop(ref, None)

    def cancel(self, ref: str) -> None:
        flag = self._flags.get(ref)
        if flag is not None:
            flag.set()


@message("task.create", "string", "string")
def create(call: Call, label: str, description: str) -> str:
    return call.xen.tasks.create(label, description)


@message("task.destroy", "task")
def destroy(call: Call, task: str) -> None:
    call.xen.tasks.cancel(task)
    call.db.delete("task", task)


@message("task.cancel", "task")
def cancel(call: Call, task: str) -> None:
    if "cancel" not in call.db.get("task", task).refs("allowed_operations"):
        raise XenError("OPERATION_NOT_ALLOWED", task)
    call.xen.tasks.cancel(task)


@message("task.set_status", "task", "string")
def set_status(call: Call, task: str, status: str) -> None:
    call.db.set("task", task, status=status)
