"""The shell scripts run for real, by dash and by busybox, on drives of the product's own making.

Each runs in mounts of its own, where /etc, /root, /home, /run and /var/lib are a guest's. Nothing is mounted from a
device: tests/lab/test_guest_scripts.py does that.
"""

import ctypes
import os
import shutil
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from configdrive.guest_scripts import BOOTHOOK, STATUS_FILE, Act, GuestStatus, boothook, parse_status, render
from configdrive.iso import build_iso
from tests.configdrive.drives import DATED, USER_DATA, make_files, tool

SHELLS = {"dash": ("dash",), "busybox": ("busybox", "sh")}
PASSWORD = "s3cretCanary0042"
OLD_KEY, NEW_KEY, USERS_KEY = (f"ssh-ed25519 AAAAC3Nz{name} {name}@example.org" for name in ("old", "new", "user"))
ENTER = """
for place in etc root home run var/lib; do mount --bind "$1/$place" "/$place" || exit 99; done
shift
exec "$@"
"""
# Debian's own set-up of chpasswd, with a hash that takes no time.
PAM = "password required pam_unix.so sha512 rounds=1000\n"
CLOUD_CFG = """
users:
   - default
system_info:
   distro: debian
   default_user:
     name: "alice"
     lock_passwd: True
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="Setting passwords needs root.")


@dataclass
class Guest:
    """A machine's directories below `root`, a drive that is mounted at `drive`, and the shell that runs scripts."""

    root: Path
    shell: tuple[str, ...]
    path: str
    drive: Path
    scripts: dict[str, str] = field(default_factory=dict)

    def insert(self, **facts) -> None:
        """Put another drive in: an image of these facts, unpacked by a reader that is not ours."""
        shutil.rmtree(self.drive, ignore_errors=True)
        self.drive.mkdir()
        image = self.root / "drive.iso"
        image.write_bytes(build_iso(make_files(**facts), "config", DATED))
        tool(self.drive, "bsdtar", "-xf", str(image))

    def run(self, name: str, *arguments: str, shell: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
        script = self.root / name
        script.write_text(self.scripts.get(name) or render(name, "config"))
        enter = ["unshare", "--mount", "sh", "-c", ENTER, "sh", str(self.root)]
        return subprocess.run(
            [*enter, *(shell or self.shell), str(script), *arguments],
            env={"PATH": self.path}, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, cwd="/", check=False,
        )  # fmt: skip

    def read(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return self.run("config-drive-read.sh", "-d", str(self.drive), *arguments)

    def set(self, *arguments: str) -> GuestStatus:
        done = self.run("cloud-set-vm-password.sh", "-d", str(self.drive), *arguments)
        assert done.returncode == 0, done.stderr
        return self.status()

    def boot_by_cloud_init(self) -> GuestStatus:
        """What cloud-init does with the part at each boot (handlers/boot_hook.py)."""
        part = boothook("config")
        self.scripts[BOOTHOOK] = part.removeprefix("#cloud-boothook").lstrip()
        assert self.scripts[BOOTHOOK].count("directory=''") == 1
        self.scripts[BOOTHOOK] = self.scripts[BOOTHOOK].replace("directory=''", f"directory='{self.drive}'")
        done = self.run(BOOTHOOK)
        assert done.returncode == 0
        return self.status()

    def status(self) -> GuestStatus:
        return parse_status(self.file(STATUS_FILE).read_bytes())

    def file(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def hash_of(self, user: str) -> str:
        lines = (line.split(":") for line in self.file("etc/shadow").read_text().splitlines())
        return next(fields[1] for fields in lines if fields[0] == user)

    def has_password(self, user: str, password: str) -> bool:
        library = ctypes.CDLL("libcrypt.so.1")
        library.crypt.restype = ctypes.c_char_p
        return library.crypt(password.encode(), self.hash_of(user).encode()) == self.hash_of(user).encode()

    def keys(self, home: str) -> list[str]:
        return self.file(f"{home}/.ssh/authorized_keys").read_text().splitlines()


@pytest.fixture(params=SHELLS)
def guest(request, tmp_path) -> Guest:
    for name in ("root", "home/alice", "run", "var/lib", "etc/pam.d", "etc/cloud", "drive"):
        (tmp_path / name).mkdir(parents=True)
    etc = tmp_path / "etc"
    (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
    (etc / "group").write_text("root:x:0:\nshadow:x:42:\nalice:x:1000:\n")
    (etc / "shadow").write_text("root:*:19000:0:99999:7:::\nalice:!:19000:0:99999:7:::\n")
    (etc / "pam.d/chpasswd").write_text(PAM)
    (etc / "pam.d/other").write_text(PAM)
    (etc / "cloud/cloud.cfg").write_text(CLOUD_CFG)
    shutil.copy("/etc/ld.so.cache", etc)
    shutil.copytree("/etc/alternatives", etc / "alternatives", symlinks=True)  # awk is one
    os.chown(tmp_path / "home/alice", 1000, 1000)
    guest = Guest(tmp_path, SHELLS[request.param], _path(request.param, tmp_path), tmp_path / "drive")
    guest.insert()
    return guest


def _path(shell: str, root: Path) -> str:
    """For busybox: its own applets before anything else. Debian's has no chpasswd and none does root's mounts."""
    if shell != "busybox":
        return os.environ["PATH"]
    applets = root / "applets"
    applets.mkdir()
    for name in tool(root, "busybox", "--list").decode().split():
        if name not in {"sh", "mount", "unshare"}:
            (applets / name).symlink_to(shutil.which("busybox"))
    return f"{applets}:/usr/sbin:/usr/bin:/sbin:/bin"


# Reading -----------------------------------------------------------------------------------------


@needs_root
def test_all_metadata_is_one_key_a_line(guest):
    assert guest.read("-m").stdout.decode().splitlines() == [
        "availability-zone=zone1",
        "cloud-identifier=CloudStack-{0b5e4a0c-64f2-4a34-9c9e-6f1de9b1f2aa}",
        "instance-id=i-2-21-VM",
        "local-hostname=web-1",
        "service-offering=Small Instance",
        "vm-id=21",
    ]


@needs_root
@pytest.mark.parametrize("key", ["instance-id", "instance_id"])
def test_one_key_in_either_spelling(guest, key):
    assert guest.read("-m", key).stdout == b"i-2-21-VM\n"


@needs_root
@pytest.mark.parametrize("spelling", ["_", "-"])
def test_a_drive_with_names_in_one_spelling_is_read(guest, spelling):
    other = {"_": "-", "-": "_"}[spelling]
    for file in (guest.drive / "cloudstack/metadata").glob(f"*{other}*"):
        file.unlink()

    assert guest.read("-m", "vm-id").stdout == b"21\n"
    assert b"service-offering=Small Instance\n" in guest.read("-m").stdout
    assert guest.read("-k").stdout == b"ssh-ed25519 AAAAC3Nz alice@example.org\n"


@needs_root
def test_user_data_comes_byte_for_byte(guest):
    guest.insert(user_data=bytes(range(256)) * 20)

    assert guest.read("-u").stdout == bytes(range(256)) * 20


@needs_root
def test_everything_shows_all_but_the_password(guest):
    shown = guest.read("-a").stdout

    assert USER_DATA in shown
    assert b"== metadata\navailability-zone=zone1\n" in shown
    assert b"== keys\nssh-ed25519 AAAAC3Nz alice@example.org\n" in shown
    assert PASSWORD.encode() not in shown


@needs_root
@pytest.mark.parametrize(
    ("arguments", "facts", "says"),
    [
        (["-m", "local-ipv4"], {}, b"no metadata 'local-ipv4'. It has: availability-zone cloud-identifier "),
        (["-u"], {"user_data": None}, b"no user data"),
        (["-k"], {"public_keys": ()}, b"no SSH public keys"),
    ],
)
def test_what_the_drive_does_not_have_is_named(guest, arguments, facts, says):
    guest.insert(**facts)

    answer = guest.read(*arguments)

    assert (answer.returncode, answer.stdout) == (6, b"")
    assert says in answer.stderr


@needs_root
@pytest.mark.parametrize(
    "arguments", [[], ["-m", "-u"], ["-x"], ["-m", "../password/vm_password"], ["-u", "-w", "x"], ["-l"], ["-l", "a b"]]
)
def test_wrong_usage_is_explained(guest, arguments):
    answer = guest.run("config-drive-read.sh", *arguments)

    assert (answer.returncode, answer.stdout) == (2, b"")
    assert b"Usage:" in answer.stderr


# The drive ---------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize(("name", "arguments"), [("config-drive-read.sh", ["-m"]), ("cloud-set-vm-password.sh", [])])
class TestNoDrive:
    def test_its_label_is_named_and_the_option_that_overrides_it(self, guest, name, arguments):
        answer = guest.run(name, *arguments, "-w", "0", "-l", "no-such-drive")

        assert answer.returncode == 4
        assert b"'no-such-drive' was found" in answer.stderr
        assert b"-l." in answer.stderr

    def test_nothing_stays_behind(self, guest, name, arguments):
        guest.run(name, *arguments, "-w", "0", "-l", "no-such-drive")

        assert list(guest.file("run").glob("extdhcp.*")) == []

    def test_a_directory_that_is_no_drive(self, guest, name, arguments):
        answer = guest.run(name, *arguments, "-d", "/root")

        assert answer.returncode == 4
        assert b"'cloudstack'" in answer.stderr

    def test_only_root_can_look_for_it(self, guest, name, arguments):
        others = ("/usr/bin/setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", *guest.shell)
        # Others may come as far as the script, not into the guest's secrets.
        for directory in [guest.root, *guest.root.parents][:4]:
            directory.chmod(directory.stat().st_mode | stat.S_IXOTH)

        answer = guest.run(name, *arguments, shell=others)

        assert answer.returncode == 3
        assert b"Only root" in answer.stderr


@needs_root
def test_label_of_an_image_is_read_without_tools_of_file_systems(guest):
    (guest.root / "drive.iso").write_bytes(build_iso(make_files(), "config-2", DATED))
    guest.scripts["label.sh"] = render("config-drive-read.sh", "config").replace(
        'open_drive\n"$what"', 'iso_label "$directory"'
    )

    assert guest.run("label.sh", "-m", "-d", str(guest.root / "drive.iso")).stdout == b"config-2"
    assert guest.run("label.sh", "-m", "-d", "/etc/passwd").stdout == b""


@needs_root
def test_a_run_without_a_drive_leaves_its_mark(guest):
    guest.run("cloud-set-vm-password.sh", "-w", "0", "-l", "no-such-drive")

    status = guest.status()
    assert (status.label, status.drive, status.password, status.user_data_bytes) == ("no-such-drive", None, None, None)


# Passwords ---------------------------------------------------------------------------------------


@needs_root
def test_password_is_set_once_per_change(guest):
    assert guest.set().password is Act.SET
    assert guest.has_password("root", PASSWORD)

    own = "root:$6$own:19000:0:99999:7:::\nalice:!:19000:0:99999:7:::\n"
    guest.file("etc/shadow").write_text(own)
    assert guest.set().password is Act.UNCHANGED
    assert guest.file("etc/shadow").read_text() == own

    guest.insert(password="another0Password")
    assert guest.set().password is Act.SET
    assert guest.has_password("root", "another0Password")
    assert not guest.has_password("root", PASSWORD)


@needs_root
@pytest.mark.parametrize("password", ["$(reboot)`id`", "a'b\"c d", "-n", "\\n\\0", "a:b", "Grüße€🐧", "* ?", "%s%n"])
def test_password_is_taken_as_it_is(guest, password):
    guest.insert(password=password)

    assert guest.set().password is Act.SET
    assert guest.has_password("root", password)


@needs_root
@pytest.mark.parametrize("content", [b"", b"\r\n", b"saved_password", b"saved_password\r\n", None])
def test_no_password_on_the_drive_changes_nothing(guest, content):
    before = guest.file("etc/shadow").read_text()
    guest.insert(password=None)
    if content is not None:
        (guest.drive / "cloudstack/password").mkdir()
        (guest.drive / "cloudstack/password/vm_password.txt").write_bytes(content)

    assert guest.set().password is Act.ABSENT
    assert guest.file("etc/shadow").read_text() == before


@needs_root
def test_line_end_is_no_part_of_the_password(guest):
    file = guest.drive / "cloudstack/password/vm_password.txt"
    file.chmod(0o600)
    file.write_bytes(b"pass0Word\r\n")

    guest.set()

    assert guest.has_password("root", "pass0Word")


@needs_root
def test_password_of_another_user(guest):
    assert guest.set("-u", "alice").user == "alice"

    assert guest.has_password("alice", PASSWORD)
    assert guest.hash_of("root") == "*"


@needs_root
def test_failure_is_told_and_tried_again(guest):
    answer = guest.run("cloud-set-vm-password.sh", "-d", str(guest.drive), "-u", "bob")
    assert answer.returncode == 7
    assert b"no user 'bob'" in answer.stderr
    assert guest.status().password is guest.status().keys is Act.FAILED

    guest.file("etc/pam.d/chpasswd").write_text("password required pam_deny.so\n")
    assert guest.run("cloud-set-vm-password.sh", "-d", str(guest.drive)).returncode == 7
    assert guest.status().password is Act.FAILED

    guest.file("etc/pam.d/chpasswd").write_text(PAM)
    assert guest.set().password is Act.SET


@needs_root
def test_password_is_in_no_command_and_no_output(guest):
    """A trace shows every command with its arguments, and every variable that is given a value."""
    traced = (*guest.shell, "-x")
    answer = guest.run("cloud-set-vm-password.sh", "-d", str(guest.drive), shell=traced)

    assert answer.returncode == 0
    assert b"chpasswd" in answer.stderr
    assert PASSWORD.encode() not in answer.stdout + answer.stderr


@needs_root
def test_marks_are_roots_alone_and_hold_no_password(guest):
    guest.set()

    marks = guest.file("var/lib/extdhcp")
    assert stat.S_IMODE(marks.stat().st_mode) == 0o700
    assert {file.name for file in marks.iterdir()} == {"status", "password.root", "keys.root"}
    for file in marks.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert PASSWORD.encode() not in file.read_bytes()


@needs_root
def test_mark_is_salted(guest):
    marks = set()
    for _ in range(2):
        guest.set()
        marks.add(guest.file("var/lib/extdhcp/password.root").read_text())
        guest.file("var/lib/extdhcp/password.root").unlink()

    assert len(marks) == 2


@needs_root
def test_status_says_what_was_found(guest):
    status = guest.set()

    assert (status.script, status.label, status.drive) == ("script", "config", str(guest.drive))
    assert (status.instance_id, status.user, status.user_data_bytes) == ("i-2-21-VM", "root", len(USER_DATA))


@needs_root
def test_words_of_system_v_init(guest):
    assert guest.run("cloud-set-vm-password.sh", "stop").returncode == 0
    assert not guest.file(STATUS_FILE).exists()
    assert guest.set("start").password is Act.SET
    assert guest.set("restart").password is Act.UNCHANGED
    assert b"password=unchanged\n" in guest.run("cloud-set-vm-password.sh", "status").stdout
    assert guest.run("cloud-set-vm-password.sh", "begin").returncode == 2


# SSH keys ----------------------------------------------------------------------------------------


@needs_root
def test_keys_are_installed_with_the_modes_that_sshd_wants(guest):
    guest.insert(public_keys=(OLD_KEY, NEW_KEY))

    assert guest.set("-u", "alice").keys is Act.SET

    assert guest.keys("home/alice") == [OLD_KEY, NEW_KEY]
    directory = guest.file("home/alice/.ssh")
    for path, mode in ((directory, 0o700), (directory / "authorized_keys", 0o600)):
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid, path.stat().st_gid) == (mode, 1000, 1000)


@needs_root
def test_the_users_own_keys_stay_and_none_is_there_twice(guest):
    guest.file("root/.ssh").mkdir()
    guest.file("root/.ssh/authorized_keys").write_text(f"{OLD_KEY}\n# mine\n{USERS_KEY}")  # no newline at the end
    guest.insert(public_keys=(OLD_KEY,))

    assert guest.set().keys is Act.SET
    assert guest.keys("root") == ["# mine", USERS_KEY, OLD_KEY]


@needs_root
def test_a_key_that_left_the_drive_is_taken_out(guest):
    guest.insert(public_keys=(OLD_KEY,))
    guest.set()
    with guest.file("root/.ssh/authorized_keys").open("a") as file:
        file.write(f"{USERS_KEY}\n")

    guest.insert(public_keys=(NEW_KEY,))
    assert guest.set().keys is Act.SET
    assert guest.keys("root") == [USERS_KEY, NEW_KEY]

    # A drive without keys says nothing about them: nobody is locked out.
    guest.insert(public_keys=())
    assert guest.set().keys is Act.ABSENT
    assert guest.keys("root") == [USERS_KEY, NEW_KEY]


@needs_root
def test_a_key_that_the_user_removed_does_not_come_back(guest):
    guest.set()
    guest.file("root/.ssh/authorized_keys").write_text("")

    assert guest.set().keys is Act.UNCHANGED
    assert guest.keys("root") == []


@needs_root
def test_keys_are_left_alone_when_told_so(guest):
    assert guest.set("-K").keys is None
    assert not guest.file("root/.ssh").exists()


@needs_root
@pytest.mark.parametrize("link", [".ssh", ".ssh/authorized_keys"])
def test_root_follows_no_link_out_of_a_users_home(guest, link):
    path = guest.file(f"home/alice/{link}")
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("/etc" if link == ".ssh" else "/etc/shadow")
    before = guest.file("etc/passwd").read_text()

    answer = guest.run("cloud-set-vm-password.sh", "-d", str(guest.drive), "-u", "alice")

    assert answer.returncode == 7
    assert guest.status().keys is Act.FAILED
    assert guest.status().password is Act.SET
    assert path.is_symlink()
    assert not guest.file("etc/authorized_keys").exists()
    assert guest.file("etc/passwd").read_text() == before


# cloud-init's boothook ---------------------------------------------------------------------------


def cloud_init_has_set_passwords(guest: Guest) -> None:
    """Its module leaves this mark once it ran for an instance (cloudinit/helpers.py, FileSemaphores)."""
    marks = guest.file("var/lib/cloud/instance/sem")
    marks.mkdir(parents=True)
    (marks / "config_set_passwords").touch()


@needs_root
def test_an_instances_first_password_is_left_to_cloud_init(guest):
    before = guest.file("etc/shadow").read_text()

    status = guest.boot_by_cloud_init()

    assert (status.script, status.user) == ("cloud-boothook", "alice")
    assert status.password is status.keys is Act.DEFERRED
    assert guest.file("etc/shadow").read_text() == before
    assert not guest.file("home/alice/.ssh").exists()


@needs_root
def test_what_cloud_init_set_is_not_undone_and_a_reset_arrives(guest):
    guest.insert(public_keys=(OLD_KEY,))
    guest.boot_by_cloud_init()
    cloud_init_has_set_passwords(guest)
    own = "root:*:19000:0:99999:7:::\nalice:$6$own:19000:0:99999:7:::\n"
    guest.file("etc/shadow").write_text(own)
    guest.file("home/alice/.ssh").mkdir()
    guest.file("home/alice/.ssh/authorized_keys").write_text(f"{OLD_KEY}\n{USERS_KEY}\n")

    status = guest.boot_by_cloud_init()
    assert status.password is status.keys is Act.UNCHANGED
    assert guest.file("etc/shadow").read_text() == own

    guest.insert(password="reset0Password", public_keys=(NEW_KEY,))
    status = guest.boot_by_cloud_init()
    assert status.password is status.keys is Act.SET
    assert guest.has_password("alice", "reset0Password")
    assert guest.hash_of("root") == "*"
    assert guest.keys("home/alice") == [USERS_KEY, NEW_KEY]
    assert guest.boot_by_cloud_init().password is Act.UNCHANGED


@needs_root
def test_script_and_boothook_share_their_marks(guest):
    cloud_init_has_set_passwords(guest)
    guest.set("-u", "alice")

    assert guest.boot_by_cloud_init().password is Act.UNCHANGED


@needs_root
@pytest.mark.parametrize(
    ("files", "user"),
    [
        ({"cloud.cfg.d/90_user.cfg": "system_info:\n  default_user:\n    name: admin\n"}, "admin"),
        ({"cloud.cfg": "users:\n  - default\n"}, "root"),
    ],
)
def test_boothook_acts_for_cloud_inits_default_user(guest, files, user):
    for name, content in files.items():
        guest.file(f"etc/cloud/{name}").parent.mkdir(exist_ok=True)
        guest.file(f"etc/cloud/{name}").write_text(content)

    assert guest.boot_by_cloud_init().user == user


@needs_root
@pytest.mark.parametrize("chosen", ["user: bob\n", "user:\n  name: bob\n", "#cloud-config\nuser: 'bob'\n"])
def test_boothook_acts_for_the_user_whom_user_data_named(guest, chosen):
    cloud_init_has_set_passwords(guest)
    guest.file("var/lib/cloud/instance/cloud-config.txt").write_text(chosen)

    status = guest.boot_by_cloud_init()

    assert (status.user, status.password) == ("bob", Act.FAILED)
    assert guest.hash_of("alice") == "!"


@needs_root
def test_boothook_without_a_drive_is_no_failed_boot(guest):
    guest.drive.rename(guest.root / "ejected")

    assert guest.boot_by_cloud_init().drive is None
