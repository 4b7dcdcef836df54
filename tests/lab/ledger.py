"""What bring-up started, on disk, so that any later process can end exactly that."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.lab.system import Process


@dataclass
class Ledger:
    """Written before a namespace or link is made and as soon as a process has its id."""

    path: Path
    complete: bool = False  # bring-up reached its end
    namespaces: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)  # in the machine's own network namespace
    directories: list[str] = field(default_factory=list)  # mount points that were missing
    processes: list[Process] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Ledger | None":
        if not path.exists():
            return None
        kept = json.loads(path.read_text())
        kept["processes"] = [Process(**process) for process in kept["processes"]]
        return cls(path, **kept)

    def save(self) -> None:
        content = asdict(self)
        del content["path"]
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(content, indent=2))
        new.rename(self.path)

    def note(self, kind: str, what: str | Process) -> None:
        """Add to one of the lists, and keep it."""
        getattr(self, kind).append(what)
        self.save()
