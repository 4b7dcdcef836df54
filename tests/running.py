"""manage.py's commands, run as a person or a script runs them."""

import io
import json
from dataclasses import dataclass

from django.core.management import call_command
from django.core.management.base import CommandError


@dataclass(frozen=True)
class Run:
    status: int
    out: str
    err: str

    @property
    def json(self):
        """All of stdout: nothing else may be mixed in."""
        return json.loads(self.out)


def run_command(capsys, *words: object) -> Run:
    """As manage.py does it: a CommandError is a line on stderr and status 1."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    capsys.readouterr()
    try:
        call_command(*map(str, words), stdout=out, stderr=err)
    except CommandError as error:
        err.write(f"{error}\n")
        status = error.returncode
    except SystemExit as end:
        status = end.code or 0
    printed = capsys.readouterr()
    return Run(status, out.getvalue() + printed.out, err.getvalue() + printed.err)
