"""What a deployment sets, and what is said when it is wrong."""

import os
import stat

import pytest
from environs import FileAwareEnv
from environs.exceptions import EnvError

from extdhcp_site import environment


@pytest.fixture(autouse=True)
def unsealed(monkeypatch):
    """The settings sealed theirs when they had read all."""
    monkeypatch.setattr(environment, "env", FileAwareEnv())


@pytest.fixture
def server_env(tmp_path, monkeypatch):
    """Write a server.env for a process id, and read it as a command would."""

    def read(pid: int) -> str | None:
        path = tmp_path / "server.env"
        path.write_text(f"# pid {pid}\nEXTDHCP_TEST_VALUE=theirs\n")
        monkeypatch.setenv("EXTDHCP_ENV_FILE", str(path))
        environment._read_environment_of_running_server()
        return environment.env.str("EXTDHCP_TEST_VALUE", None)

    return read


def test_a_command_meets_the_running_servers_environment(server_env):
    assert server_env(os.getpid()) == "theirs"


def test_what_a_killed_server_left_behind_is_not_read(server_env):
    assert server_env(2**22 + 1) is None  # above the kernel's largest process id


def test_options_of_a_database_url_are_kept(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "mysql://user:password@db.example/extdhcp?ssl_mode=REQUIRED")
    assert environment.database()["OPTIONS"]["ssl_mode"] == "REQUIRED"


def test_another_kind_of_database_is_refused(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://user:password@db.example/extdhcp")
    with pytest.raises(EnvError, match="only sqlite:// and mysql://"):
        environment.database()


def test_a_new_sqlite_file_is_its_owners_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'new.sqlite3'}")
    environment.database()
    assert stat.S_IMODE((tmp_path / "new.sqlite3").stat().st_mode) == 0o600


def test_a_missing_key_stops_the_start(monkeypatch):
    monkeypatch.delenv("SECRET_KEY")
    with pytest.raises(EnvError, match="Set SECRET_KEY or SECRET_KEY_FILE"):
        environment.secret("SECRET_KEY")


@pytest.mark.parametrize("keys", [",", " , ,"])
def test_a_list_of_keys_without_a_key_is_refused(monkeypatch, keys):
    monkeypatch.setenv("FIELD_ENCRYPTION_KEYS", keys)
    with pytest.raises(EnvError, match="no key in it"):
        environment.field_encryption_keys()


def test_a_malformed_key_is_not_quoted(monkeypatch):
    monkeypatch.setenv("FIELD_ENCRYPTION_KEYS", "not-a-key-but-perhaps-a-secret")
    with pytest.raises(EnvError, match="key 1 of 1") as refused:
        environment.field_encryption_keys()
    assert "perhaps-a-secret" not in str(refused.value)


def test_the_newline_at_a_files_end_is_not_part_of_its_secret(tmp_path, monkeypatch):
    (tmp_path / "key").write_text("from a file\n")
    monkeypatch.delenv("SECRET_KEY")
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "key"))
    assert environment.secret("SECRET_KEY") == "from a file"


def test_a_number_that_makes_no_sense_stops_the_start(monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "0")
    with pytest.raises(EnvError, match="WEB_CONCURRENCY: 0 is too small"):
        environment.number("WEB_CONCURRENCY", 2, least=1)


@pytest.mark.parametrize("value", ["localhost", "192.0.2.0/33", "*", "192.0.2.1/24"])
def test_a_proxy_that_is_no_address_stops_the_start(monkeypatch, value):
    monkeypatch.setenv("TRUSTED_PROXIES", f"198.51.100.1,{value}")
    with pytest.raises(EnvError, match="TRUSTED_PROXIES"):
        environment.networks("TRUSTED_PROXIES")
