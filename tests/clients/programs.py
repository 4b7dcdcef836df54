"""Programs of the clients' users: files beside this one, and what docs/api.md shows, run as it stands there."""

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.environments import Environment
from tests.server import ROOT

HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "api.md"
SECONDS = 180
RUN_WITH = {
    "python": ("python",),
    "javascript": ("node",),
    "yaml": ("ansible-playbook",),
    "sh": ("bash", "-eu"),
}
# Where a playbook calls a module, and not where it names a plugin.
MODULE = re.compile(r"^([ -]+)ngine_io\.cloudstack\.(?=\w+:)", re.M)
LANGUAGES = {".py": "python", ".js": "javascript", ".yml": "yaml", ".sh": "sh"}


@dataclass(frozen=True)
class Keys:
    api_key: str
    secret_key: str
    token: str


@dataclass(frozen=True)
class Outcome:
    status: int
    printed: str
    complained: str

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object that the program printed; one that failed shows what it complained of."""
        assert self.status == 0, self.text
        return json.loads(self.printed)

    @property
    def text(self) -> str:
        return self.printed[-6000:] + self.complained[-3000:]


@dataclass(frozen=True)
class Program:
    """`name` is a file beside this one, or, with `on_page`, a heading of docs/api.md whose first code it is.

    `old_names` is for a playbook: its modules are called as in collection 2.x, `cs_instance` for `instance`.
    """

    environment: Callable[[], Environment]
    name: str
    arguments: tuple[str, ...] = ()
    user: str = "maria"
    on_page: bool = False
    old_names: bool = False

    def run(self, endpoint: str, keys: Keys, directory: Path) -> Outcome:
        """Raises ClientMissing."""
        environment = self.environment()
        language, path = self._written(directory) if self.on_page else self._beside(directory)
        done = subprocess.run(
            [*RUN_WITH[language], path, *self.arguments],
            capture_output=True,
            text=True,
            cwd=directory,
            timeout=SECONDS,
            env={
                "HOME": str(directory),
                "LANG": "C.UTF-8",
                "CLOUDSTACK_ENDPOINT": endpoint,
                "CLOUDSTACK_KEY": keys.api_key,
                "CLOUDSTACK_SECRET": keys.secret_key,
                "TOKEN": keys.token,
                **environment.variables,
            },
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def _beside(self, directory: Path) -> tuple[str, Path]:
        path = HERE / self.name
        if self.old_names:
            path = directory / f"old-{self.name}"
            path.write_text(MODULE.sub(r"\1ngine_io.cloudstack.cs_", (HERE / self.name).read_text()))
        return LANGUAGES[path.suffix], path

    def _written(self, directory: Path) -> tuple[str, Path]:
        language, code = code_of(self.name)
        path = directory / re.sub(r"[^a-z0-9]+", "-", f"{self.name}-{self.user}".lower())
        path.write_text(code)
        return language, path


def code_of(heading: str) -> tuple[str, str]:
    """Language and text of the first code that follows a heading of docs/api.md."""
    found = re.search(rf"^#+ {re.escape(heading)}\n.*?^```(\w+)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert found, f"{PAGE.name} has no code after a heading {heading!r}."
    return found[1], found[2]
