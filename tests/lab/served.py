"""`make lab`: the lab's hosts, and the server on them left running in the background."""

import json
import os
import signal
import sys
from pathlib import Path

from tests.lab import LabError, bring_up, tear_down
from tests.lab.system import say, wait_for
from tests.server import ROOT, Server, ServerFailed

VAR = Path(os.environ.get("VAR_DIR", ROOT / "var")).absolute()
SERVER_JSON = VAR / "server.json"


def up() -> None:
    if SERVER_JSON.exists() and _is_alive(json.loads(SERVER_JSON.read_text())["pid"]):
        say("a server is running already; make lab-down ends it")
        return
    bring_up()
    server = Server(VAR / "lab", VAR)
    say("database and server")
    server.prepare()
    server.run("-m", "tests.seed", "lab")
    server.start()
    fields = server.announced
    print(f"Console  {fields['console']}  user {server.username}  password {server.password}")
    print(f"API      {fields['endpoint']}  (keys in var/server.json)")


def down() -> None:
    if SERVER_JSON.exists():
        pid = json.loads(SERVER_JSON.read_text())["pid"]
        if _is_alive(pid):
            os.kill(pid, signal.SIGTERM)
            wait_for("the server to stop", lambda: not _is_alive(pid), seconds=60)
    tear_down()


def _is_alive(pid: int) -> bool:
    """Whether `pid` is a server of ours: a number may have gone to somebody else since."""
    try:
        return b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


if __name__ == "__main__":
    try:
        {"up": up, "down": down}[sys.argv[1]]()
    except (LabError, ServerFailed) as error:
        sys.exit(f"lab: {error}")
