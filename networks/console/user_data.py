"""What a guest will make of user data, as far as its text tells: said before it is sent, and never in its way.

cloud-init ignores what it does not understand, and its log lies in a guest that nobody can log in to.
"""

import email
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice

import yaml
from django.http import HttpRequest

from extdhcp_site.console.forms import CommandForm

LONGEST = 64 * 1024
DEEPEST = 50
# Of those in texts too, which may be left open.
MOST_BRACKETS = 500
_BRACKET = re.compile(r"[\[\]{}]")
MOST_PROBLEMS = 8
MOST_PARTS = 32
# In a mapping's node, what YAML made of the value.
_MAP, _LIST, _TEXT, _NUMBER, _BOOL, _NULL = "map", "seq", "str", "int", "bool", "null"
_IN_WORDS = {_MAP: "a mapping", _LIST: "a list", _TEXT: "a text", _NUMBER: "a number", _BOOL: "true or false"}


def _keys(kinds: tuple[str, ...], names: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(names.split(), kinds)


# The top level of cloud-config, and the kinds of value that each key takes. Where cloud-init takes nearly anything,
# there is no kind. Source: cloud-init's documentation, "Module reference" and "Base configuration", 22.4 to 25.1.
CLOUD_CONFIG: dict[str, tuple[str, ...]] = {
    **_keys((_LIST,), "bootcmd runcmd write_files ssh_authorized_keys ssh_import_id mounts fs_setup"),
    **_keys((_LIST,), "mount_default_fields ssh_genkeytypes ssh_fp_console_blacklist ssh_key_console_blacklist"),
    **_keys((_LIST,), "cloud_init_modules cloud_config_modules cloud_final_modules datasource_list"),
    **_keys((_MAP,), "ansible apk_repos apt autoinstall ca-certs ca_certs chef chpasswd device_aliases disk_setup"),
    **_keys((_MAP,), "drivers fan growpart grub-dpkg grub_dpkg keyboard landscape mcollective phone_home power_state"),
    **_keys((_MAP,), "puppet random_seed resolv_conf rh_subscription rsyslog salt_minion snap spacewalk ssh"),
    **_keys((_MAP,), "ssh_keys ssh_publish_hostkeys swap ubuntu_advantage ubuntu_pro updates vendor_data vendor_data2"),
    **_keys((_MAP,), "yum_repos zypper output reporting system_info datasource network rpi"),
    **_keys((_MAP, _NULL), "lxd ntp wireguard"),
    **_keys((_BOOL,), "allow_public_ssh_keys apt_reboot_if_required apt_update apt_upgrade create_hostname_file"),
    **_keys((_BOOL,), "disable_ec2_metadata disable_root manage_resolv_conf migrate no_ssh_fingerprints"),
    **_keys((_BOOL,), "package_reboot_if_required package_update package_upgrade prefer_fqdn_over_hostname"),
    **_keys((_BOOL,), "preserve_hostname ssh_deletekeys ssh_quiet_keygen"),
    **_keys((_TEXT,), "authkey_hash byobu_by_default disable_root_opts final_message fqdn hostname locale_configfile"),
    **_keys((_TEXT,), "timezone yum_repo_dir"),
    **_keys((_TEXT, _NUMBER), "password"),
    **_keys((_TEXT, _BOOL), "locale ssh_pwauth manage_etc_hosts resize_rootfs"),
    **_keys((_LIST, _MAP), "packages"),
    **_keys((), "apt_pipelining groups user users merge_how merge_type launch-index"),
}
# What user data may begin with, and what it is then.
# Sources: the documentation of cloud-init, "User-data formats", and of cloudbase-init, "Userdata".
_BEGINNINGS = (
    ("#!", "A script, which runs at the guest's first boot"),
    ("#include", "A list of URLs, which the guest fetches"),
    ("#cloud-boothook", "A boothook, which runs early at each boot"),
    ("#part-handler", "A part handler"),
    ("#cloud-config-archive", "A cloud-config archive"),
    ("#cloud-config-jsonp", "A JSON patch of cloud-config"),
    ("## template:", "A Jinja template"),
    ("#ps1", "A PowerShell script, for cloudbase-init"),
    ("rem cmd", "A batch script, for cloudbase-init"),
    ("<powershell>", "A PowerShell script, for cloudbase-init"),
)
_HEADER = "#cloud-config"


@dataclass(frozen=True)
class Look:
    """`kind`: what the guest will take it for; `problems`: what it will probably not take as it was meant."""

    kind: str
    problems: list[str] = field(default_factory=list)


def look_at(text: str, is_ignition: bool) -> Look:
    """Words for any text. `is_ignition`: its guests read Ignition configurations, and cloud-init's otherwise."""
    try:
        return _look_at(text, is_ignition)
    except Exception as error:
        # The parsers of YAML and MIME have no list of what they raise, and this is only advice.
        return Look("Nothing that can be read here", [f"It is malformed ({type(error).__name__})."])


def _look_at(text: str, is_ignition: bool) -> Look:
    if len(text) > LONGEST:
        return Look(f"User data of more than {LONGEST // 1024} KiB is not looked at")
    if is_ignition:
        return _ignition(text)
    first = text.split("\n", 1)[0].rstrip()
    if first == _HEADER:
        return Look("A cloud-config", _cloud_config(text))
    if first.startswith(("Content-Type:", "MIME-Version:")):
        return _mime(text)
    for beginning, kind in _BEGINNINGS:
        if first.lower().startswith(beginning):
            return Look(kind)
    return _unknown(text, first)


def _ignition(text: str) -> Look:
    try:
        is_config = "ignition" in json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        return Look("An Ignition configuration", [f"It is no JSON: {error}"[:200]])
    problems = [] if is_config else ['It has no "ignition" with a version: the guest will not boot with it.']
    return Look("An Ignition configuration", problems)


def _unknown(text: str, first: str) -> Look:
    if re.match(r"\s*#\s*cloud-config\b", first, re.IGNORECASE):
        return Look("Not a cloud-config", [f"The first line must be {_HEADER} and nothing else."])
    named = set(re.findall(r"^([a-z_-]+):", text, re.MULTILINE)) & CLOUD_CONFIG.keys()
    if named:
        return Look(
            "Not a cloud-config",
            [f"It looks like one, but the first line is not {_HEADER}: cloud-init will ignore all of it."],
        )
    return Look("Of no kind that cloud-init knows", ["cloud-init will ignore it, unless your own script reads it."])


def _mime(text: str) -> Look:
    """In several parts, each of a type of its own."""
    message = email.message_from_string(text)
    problems: list[str] = []
    for number, part in enumerate(message.walk()):
        if number > MOST_PARTS or len(problems) >= MOST_PROBLEMS:
            break
        if part.get_content_type() == "text/cloud-config":
            content = part.get_payload(decode=True)
            if isinstance(content, bytes):
                problems += _cloud_config(content.decode(errors="replace"))
    if not message.is_multipart() and message.get_content_type() == "text/plain":
        problems.append("It is one part of type text/plain, which cloud-init ignores.")
    return Look("In several parts (MIME)", problems[:MOST_PROBLEMS])


# cloud-config -----------------------------------------------------------------------------------------


def _cloud_config(text: str) -> list[str]:
    try:
        if _has_many_brackets(text):
            raise _TooDeep
        # Composed, and never constructed: merged aliases would make of a few lines as many values as one likes.
        root = yaml.compose(text, Loader=_Loader)
    except _TooDeep:
        return [f"It is nested more than {DEEPEST} deep."]
    except yaml.MarkedYAMLError as error:
        where = (
            f"Line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: "
            if error.problem_mark
            else ""
        )
        return [f"{where}this is no YAML: {error.problem}"]
    except yaml.YAMLError as error:
        return [f"This is no YAML: {error}"[:200]]
    if root is None:
        return ["It is empty but for its first line."]
    if not isinstance(root, yaml.MappingNode):
        return [f"It is {_IN_WORDS.get(_kind(root), 'no mapping')}, where cloud-config is a mapping of keys to values."]
    return list(islice(_of_mapping(root), MOST_PROBLEMS))


class _TooDeep(Exception):
    """Nested more than DEEPEST deep."""


class _Loader(yaml.SafeLoader):
    """Gives up at DEEPEST: the parser's time grows with the square of the depth, and the composer calls itself."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # What is in the deepest collection is one deeper.
        if self.depth > DEEPEST:
            raise _TooDeep
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _has_many_brackets(text: str) -> bool:
    """Looked for first: the scanner is slow with them before it has a node."""
    depth = 0
    for bracket in _BRACKET.findall(text):
        depth = depth + 1 if bracket in "[{" else max(depth - 1, 0)
        if depth > MOST_BRACKETS:
            return True
    return False


def _of_mapping(root: yaml.MappingNode) -> Iterator[str]:
    seen: set[str] = set()
    for key, value in root.value:
        line = key.start_mark.line + 1
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        if not name or name == "<<":
            continue
        shown = name[:40]
        if name in seen:
            yield f"Line {line}: {shown} stands there for the second time; only this one counts."
        seen.add(name)
        if name not in CLOUD_CONFIG:
            close = get_close_matches(shown, CLOUD_CONFIG, 1)
            meant = f"Did you mean {close[0]}?" if close else "It will be ignored."
            yield f"Line {line}: {shown} is no key of cloud-config that is known here. {meant}"
            continue
        kinds = CLOUD_CONFIG[name]
        if kinds and _kind(value) not in kinds:
            wanted = " or ".join(_IN_WORDS[kind] for kind in kinds if kind in _IN_WORDS)
            yield f"Line {line}: {name} takes {wanted}, and this is {_IN_WORDS.get(_kind(value), 'nothing')}."


def _kind(node: yaml.Node) -> str:
    return node.tag.rpartition(":")[2]


# On forms ---------------------------------------------------------------------------------------------


def of_form(request: HttpRequest, form: CommandForm, *, is_ignition: bool) -> Look | None:
    """Of the user data that was typed into it; None if there is none, or the form asks for none."""
    asked = form.fields.get("userdata")
    if asked is None or not asked.value or not form.is_sent:
        return None
    return look_at(asked.value.replace("\r\n", "\n"), is_ignition)


def must_be_shown(request: HttpRequest, look: Look | None) -> bool:
    """What it warns of is seen once before it is sent; whoever has seen it sends it all the same."""
    return look is not None and bool(look.problems) and "_although" not in request.POST
