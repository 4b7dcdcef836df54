"""A mail server in this process, as far as RFC 5321 is needed: it keeps what it is given."""

import contextlib
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass
class MailServer:
    """`refuses`: what it answers to a recipient instead of taking it. `drips`: what it says for ever before it greets.

    `logins`: the arguments of AUTH PLAIN.
    """

    port: int = 0
    refuses: str = ""
    silent: bool = False
    drips: bytes = b""
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)


@contextlib.contextmanager
def mail_server() -> Iterator[MailServer]:
    """One on a free port of this machine."""
    box = MailServer()

    class Talk(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):
                self._talk()

        def _talk(self) -> None:
            if box.silent:
                self.rfile.readline()
                return
            while box.drips:
                self.wfile.write(box.drips)
                time.sleep(0.1)
            self._say("220 here")
            while line := self.rfile.readline().decode().strip():
                if not self._answer(line):
                    return

        def _say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def _answer(self, line: str) -> bool:
            match line.upper().split(maxsplit=2):
                case ["EHLO", *_]:
                    self._say("250-here")
                    self._say("250 AUTH PLAIN")
                case ["AUTH", "PLAIN", *_]:
                    box.logins.append(line.split()[-1])
                    self._say("235 in")
                case ["RCPT", *_]:
                    box.recipients.append(line.split(":", 1)[1].strip("<>"))
                    self._say(box.refuses or "250 ok")
                case ["DATA"]:
                    self._say("354 go on")
                    box.mails.append(message_from_bytes(self._data(), policy=policy.default))
                    self._say("250 taken")
                case ["QUIT"]:
                    self._say("221 bye")
                    return False
                case _:
                    self._say("250 ok")
            return True

        def _data(self) -> bytes:
            lines = []
            while (line := self.rfile.readline()) != b".\r\n":
                lines.append(line.removeprefix(b"."))
            return b"".join(lines)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Talk) as server:
        box.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield box
        finally:
            server.shutdown()
