"""What else the guest agent is asked: to set a password, and for a file; and whether it is there at all.

Sources: QEMU's guest agent protocol (guest-set-user-password, guest-file-open, -read, -close).
"""

import base64
import contextlib
import json
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt
import libvirt_qemu

from networks.hypervisors import kvm_xml
from networks.hypervisors.base import (
    AgentAbsent,
    AgentState,
    DeadlineExceeded,
    EndpointUnreachable,
    HypervisorError,
    NotFound,
    Refused,
)
from networks.hypervisors.kvm_agent import AGENT_RESPONSE_SECONDS, NO_AGENT, READING_SECONDS, limit_waiting
from networks.hypervisors.kvm_connection import Session, error_code

T = TypeVar("T")

FILE_MAX_BYTES = 1024 * 1024
_AROUND_BYTES = 4096  # of an answer, beside the bytes it is about

_NO_ANSWER = (
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    libvirt.VIR_ERR_AGENT_UNSYNCED,
    libvirt.VIR_ERR_OPERATION_TIMEOUT,
    libvirt.VIR_ERR_OPERATION_INVALID,  # the VM does not run
    *NO_AGENT,
)
# A line end would begin another account in what the agent hands to chpasswd, a colon end the name.
_USER = re.compile(r"[^\x00-\x20\x7f:]{1,256}")
_PASSWORD = re.compile(r"[^\x00-\x1f\x7f]{1,1024}")
_NO_SUCH_FILE = re.compile(r"No such file|cannot find the (file|path)", re.IGNORECASE)


def check_account(user: str, password: str) -> None:
    if not _USER.fullmatch(user):
        raise Refused("The user name has characters that no guest agent can be given.")
    if not _PASSWORD.fullmatch(password):
        raise Refused("The password has characters that no guest agent can be given, or none at all.")


def agent_state(live_xml: str) -> AgentState | None:
    """What a running VM's definition says of its agent."""
    if not kvm_xml.has_agent_channel(live_xml):
        return AgentState.NO_CHANNEL
    connected = kvm_xml.agent_connected(live_xml)
    return None if connected is None else AgentState.CONNECTED if connected else AgentState.NOT_CONNECTED


def set_password(session: Session, domain: Any, user: str, password: str) -> None:
    """Raises AgentAbsent, also when the agent did not answer in time: then the password may be set or not."""
    failure = _failure(session, domain, domain.setUserPassword, user, password, 0)
    # Raised here and not where it was caught: libvirt's words, and so perhaps the password, are not in its chain.
    if failure is not None:
        raise failure


def _failure(session: Session, domain: Any, call: Callable[..., object], *arguments: object) -> HypervisorError | None:
    try:
        _ask(session, domain, call, *arguments)
    except EndpointUnreachable as error:
        return type(error)(str(error))
    except AgentAbsent as error:
        return AgentAbsent(str(error))
    except HypervisorError as error:
        return Refused(
            f"The guest did not set the password: it may have no such user. (libvirt error {error_code(error)})"
        )
    return None


def _ask(session: Session, domain: Any, call: Callable[..., T], *arguments: object) -> T:
    """One question to the agent. Raises AgentAbsent when there is none, or no answer within seconds."""
    until = time.monotonic() + READING_SECONDS
    session.do(limit_waiting, domain)
    try:
        return session.do(call, *arguments, until=until)
    except DeadlineExceeded as error:
        if time.monotonic() < until:
            raise
        raise AgentAbsent("The guest agent does not answer.") from error
    except EndpointUnreachable:
        raise
    except HypervisorError as error:
        code = error_code(error)
        if code in _NO_ANSWER:
            raise AgentAbsent(f"The guest agent is not there, or does not answer. (libvirt error {code})") from error
        raise


def read_file(session: Session, domain: Any, path: str, most: int) -> bytes:
    if not 0 < most <= FILE_MAX_BYTES:
        raise Refused(f"Of a guest's file, 1 to {FILE_MAX_BYTES} bytes can be read.")
    opened = _command(session, domain, "guest-file-open", 0, path=path, mode="r")
    if type(opened) is not int:
        raise _nonsense()
    try:
        answer = _command(session, domain, "guest-file-read", most, handle=opened, count=most)
    finally:
        with contextlib.suppress(HypervisorError):
            _command(session, domain, "guest-file-close", 0, handle=opened)
    return _content(answer, most)


def _command(session: Session, domain: Any, name: str, expected_bytes: int, **arguments: object) -> object:
    """What the agent returns, parsed; `expected_bytes` of content are in it, in base64, at most."""
    question = json.dumps({"execute": name, "arguments": arguments})
    try:
        answer = _ask(session, domain, libvirt_qemu.qemuAgentCommand, domain, question, AGENT_RESPONSE_SECONDS, 0)
    except (AgentAbsent, EndpointUnreachable):
        raise
    except HypervisorError as error:
        # The agent has no codes. A guest that lies about this has hidden its own file.
        if _NO_SUCH_FILE.search(str(error.__cause__)):
            raise NotFound("The guest has no such file.") from error
        raise Refused("The guest does not let its agent read this file.") from error
    if not isinstance(answer, str) or len(answer) > 2 * expected_bytes + _AROUND_BYTES:
        raise _nonsense()
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        raise _nonsense() from None
    if not isinstance(parsed, dict) or "return" not in parsed:
        raise _nonsense()
    return parsed["return"]


def _content(answer: object, most: int) -> bytes:
    text = answer.get("buf-b64") if isinstance(answer, dict) else None
    if not isinstance(text, str):
        raise _nonsense()
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        raise _nonsense() from None
    if len(content) > most:
        raise _nonsense()
    return content


def _nonsense() -> Refused:
    return Refused("The guest agent answered with something that is no answer.")
