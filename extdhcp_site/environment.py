"""What differs between deployments: one environment variable each, or NAME_FILE for its file.

`var/server.env`, written by `manage.py serve`, lets a command typed in another terminal meet the same
database and keys while that server runs. The real environment always wins over it.
"""

import os
import secrets
import warnings
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from cryptography.fernet import Fernet
from environs import FileAwareEnv
from environs.exceptions import EnvError

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = Path(os.environ.get("VAR_DIR", BASE_DIR / "var"))

env = FileAwareEnv()


def _read_environment_of_running_server() -> None:
    path = Path(os.environ.get("EXTDHCP_ENV_FILE", VAR_DIR / "server.env"))
    if not path.is_file():
        return
    first_line = path.read_text().partition("\n")[0]
    # One that a killed server left behind says nothing about what is wanted now.
    if Path("/proc", first_line.removeprefix("# pid "), "cmdline").exists():
        env.read_env(str(path), recurse=False)


_read_environment_of_running_server()

DEBUG = env.bool("DEBUG", False)


def _new_key(name: str) -> str:
    return Fernet.generate_key().decode() if name == "FIELD_ENCRYPTION_KEYS" else secrets.token_urlsafe(50)


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)


def secret(name: str) -> str:
    """A secret from NAME or NAME_FILE; while DEBUG is on, one generated into `var/`.

    Raises EnvError, which never quotes the value.
    """
    # A file's trailing newline is not part of its secret.
    value = str(env.str(name, "")).strip()
    if value:
        return value
    if not DEBUG:
        raise EnvError(f"Set {name} or {name}_FILE. (With DEBUG=true one is generated into {VAR_DIR}.)")
    path = VAR_DIR / name.lower()
    if not path.exists():
        write_private(path, _new_key(name))
        warnings.warn(f"{name} is not set: generated {path}. Set it before anyone else uses this.", stacklevel=2)
    return path.read_text().strip()


def field_encryption_keys() -> list[str]:
    """The Fernet keys that seal secrets at rest: the first encrypts, all decrypt."""
    keys = [key.strip() for key in secret("FIELD_ENCRYPTION_KEYS").split(",") if key.strip()]
    if not keys:
        raise EnvError("FIELD_ENCRYPTION_KEYS has no key in it: give one, or several with commas between.")
    for number, key in enumerate(keys, start=1):
        try:
            Fernet(key)
        except ValueError:
            raise EnvError(
                f"FIELD_ENCRYPTION_KEYS: key {number} of {len(keys)} is not 32 url-safe base64 bytes. "
                "Make one with: head -c 32 /dev/urandom | base64 | tr '+/' '-_'"
            ) from None
    return keys


def number(name: str, default: int, *, least: int) -> int:
    """A whole number of at least `least`."""
    value = env.int(name, default)
    if value < least:
        raise EnvError(f"{name}: {value} is too small; the least is {least}.")
    return int(value)


def networks(name: str) -> list[IPv4Network | IPv6Network]:
    """Addresses and networks with commas between; none by default."""
    found = []
    for text in env.list(name, []):
        try:
            found.append(ip_network(text.strip()))
        except ValueError:
            raise EnvError(f"{name}: {text.strip()[:50]} is no address and no network such as 192.0.2.0/24.") from None
    return found


def _make_private(path: Path) -> None:
    """A database file that only its owner can read; SQLite's journal takes its mode from it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def database() -> dict[str, object]:
    """Django's DATABASES["default"] from DATABASE_URL: SQLite or MariaDB/MySQL, with the options each needs."""
    configured = env.dj_db_url("DATABASE_URL", f"sqlite:///{VAR_DIR / 'extdhcp.sqlite3'}")
    engine = configured["ENGINE"]
    if engine.endswith("sqlite3"):
        # A deferred transaction that reads and then writes fails at once on the lock upgrade, whatever the
        # time-out; with these two qclusters and the web never see "database is locked".
        configured["OPTIONS"] = {
            **configured.get("OPTIONS", {}),
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;",
        }
        _make_private(Path(configured["NAME"]))
    elif engine.endswith("mysql"):
        configured["OPTIONS"] = {
            **configured.get("OPTIONS", {}),
            "charset": "utf8mb4",
            "isolation_level": "read committed",
            "init_command": "SET sql_mode='STRICT_TRANS_TABLES', innodb_strict_mode=1",
        }
    else:
        raise EnvError("DATABASE_URL: only sqlite:// and mysql:// (MariaDB) are supported.")
    return dict(configured)
