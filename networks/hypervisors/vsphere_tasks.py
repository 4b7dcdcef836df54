"""Waiting for a task of vSphere's, and answering what it asks meanwhile.

A task that changes a CD-ROM whose door the guest has locked stands still until somebody answers a question of the VM's.
"""

import enum
from typing import Any

from networks.hypervisors.base import AskTheOperator, Busy, DeadlineExceeded, HypervisorError, beat
from networks.hypervisors.bounded import within
from networks.hypervisors.vsphere_errors import translate
from networks.hypervisors.vsphere_session import Properties, Session
from networks.hypervisors.vsphere_types import vim
from networks.hypervisors.vsphere_updates import Change, Updates, Watched

WAIT_SECONDS = 5.0
_DOOR_LOCKED = "msg.cdromdisconnect.locked"
_DOOR_LOCKED_TEXT = "locked the CD-ROM door"  # in the question itself, where a version does not name it


class LockedDoor(enum.Enum):
    """What to do when the guest has locked the door of its CD-ROM drive."""

    LEAVE = "no"
    OVERRIDE = "yes"


_ANSWERS = {LockedDoor.OVERRIDE: ("yes", "0"), LockedDoor.LEAVE: ("no", "1")}  # a choice's label, and its usual key


def finish(session: Session, task: Any, vm: Any = None, door: LockedDoor = LockedDoor.LEAVE) -> Any:
    """Wait until `task` has ended, and give its result. `vm` is the VM whose questions may hold it up.

    Raises what the task ended with; Busy for a door that is locked and left so; AskTheOperator for another question.
    """
    # Not `info` as a whole: pyVmomi cannot read that of a task on files.
    watched = [Watched(vim.Task, ("info.state", "info.error", "info.result"), objects=(task,))]
    if vm is not None:
        watched.append(Watched(vim.VirtualMachine, ("runtime.question",), objects=(vm,)))
    updates = Updates(session, watched)
    try:
        return _Wait(session, task, vm, door).until_ended(updates)
    finally:
        updates.close()


class _Wait:
    def __init__(self, session: Session, task: Any, vm: Any, door: LockedDoor) -> None:
        self._session, self._task, self._vm, self._door = session, task, vm, door
        self._info: Properties = {}
        self._door_was_locked = False

    def until_ended(self, updates: Updates) -> Any:
        while True:
            for change in list(updates.next(WAIT_SECONDS)):
                self._hear(change)
            state = self._info.get("info.state")
            if state == vim.TaskInfo.State.success:
                return self._info.get("info.result")
            if state == vim.TaskInfo.State.error:
                raise self._failure()
            beat()

    def _hear(self, change: Change) -> None:
        if isinstance(change.ref, vim.Task):
            self._info |= change.properties or {}
        elif change.properties and (question := change.properties.get("runtime.question")) is not None:
            self._answer(question)

    def _answer(self, question: Any) -> None:
        if not _is_of_door(question):
            self._session.tidy(self._task.CancelTask)
            raise AskTheOperator("The VM has a question that a person has to answer: see it in vSphere.")
        self._door_was_locked = True
        self._session.do(self._vm.AnswerVM, question.id, _choice(question, self._door))

    def _failure(self) -> HypervisorError:
        fault: Any = self._info.get("info.error")
        if self._door_was_locked and self._door is LockedDoor.LEAVE:
            return Busy("The guest has locked the door of its CD-ROM drive.")
        error = translate(fault)
        error.__cause__ = fault
        return error


def _is_of_door(question: Any) -> bool:
    named = any(message.id == _DOOR_LOCKED for message in question.message or ())
    return named or _DOOR_LOCKED in question.text or _DOOR_LOCKED_TEXT in question.text


def _choice(question: Any, door: LockedDoor) -> str:
    label, usual = _ANSWERS[door]
    for choice in question.choice.choiceInfo:
        if (choice.label or "").strip("&_ ").casefold() == label:
            return str(choice.key)
    return usual


def finish_or_cancel(session: Session, task: Any, vm: Any, until: float) -> None:
    """Wait for `task` until then (monotonic clock); after that it is cancelled, and Busy raised."""
    try:
        with within(until):
            finish(session, task, vm)
    except DeadlineExceeded:
        session.tidy(task.CancelTask)
        raise Busy("The task in vSphere did not end in time and was cancelled.") from None
