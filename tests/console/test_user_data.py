"""What is said of user data before it is sent."""

import pytest

from networks.console.user_data import CLOUD_CONFIG, LONGEST, look_at

HEADER = "#cloud-config\n"


def problems(text: str) -> list[str]:
    return look_at(text, False).problems


@pytest.mark.parametrize(
    "good",
    [
        "packages: [nginx]\nruncmd:\n - systemctl start nginx\n",
        "users: [default]\nssh_pwauth: true\nchpasswd: {expire: false}\npassword: 1234\n",
        "ntp:\nhostname: web\nlocale: false\n",
        "write_files:\n- path: /etc/motd\n  content: |\n    hello\n",
    ],
)
def test_a_good_cloud_config_has_no_problem(good):
    assert look_at(HEADER + good, False).kind == "A cloud-config"
    assert problems(HEADER + good) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("packages: [nginx\n", "Line 3, column 1: this is no YAML"),
        ("packages:\n\t- nginx\n", "Line 3, column 1: this is no YAML"),
        ("package: [nginx]\n", "Did you mean packages?"),
        ("run_cmd: [ls]\n", "Did you mean runcmd?"),
        ("quite_another: 1\n", "It will be ignored."),
        ("runcmd: ls\n", "Line 2: runcmd takes a list, and this is a text."),
        ("write_files: {path: /x}\n", "Line 2: write_files takes a list, and this is a mapping."),
        ("hostname: a\nhostname: b\n", "Line 3: hostname stands there for the second time"),
        ("- nginx\n", "It is a list, where cloud-config is a mapping"),
        ("", "It is empty but for its first line."),
        ("a: *nothing\n", "this is no YAML: found undefined alias"),
    ],
)
def test_what_cloud_init_would_not_take(wrong, says):
    assert says in " ".join(problems(HEADER + wrong))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("#!/bin/sh\necho", "A script"),
        ("#include\nhttps://example.org/", "A list of URLs"),
        ("#cloud-boothook\n", "A boothook"),
        ("## template: jinja\n#cloud-config\n", "A Jinja template"),
        ("#ps1_sysnative\n", "A PowerShell script"),
    ],
)
def test_other_kinds_are_known_by_their_beginning(text, kind):
    look = look_at(text, False)
    assert look.kind.startswith(kind)
    assert look.problems == []


@pytest.mark.parametrize("first", ["# cloud-config", "#Cloud-config", "  #cloud-config", "#cloud-config please"])
def test_a_header_that_is_nearly_right_is_told(first):
    assert "The first line must be #cloud-config and nothing else." in problems(f"{first}\npackages: []\n")


def test_a_cloud_config_without_its_header_is_told():
    assert "cloud-init will ignore all of it" in problems("packages: [nginx]\n")[0]


def test_of_several_parts_each_cloud_config_is_looked_at():
    text = (
        'Content-Type: multipart/mixed; boundary="b"\nMIME-Version: 1.0\n\n'
        "--b\nContent-Type: text/cloud-config\n\n#cloud-config\nruncmd: ls\n"
        "--b\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n--b--\n"
    )
    assert problems(text) == ["Line 2: runcmd takes a list, and this is a text."]


def test_an_ignition_guest_reads_json():
    assert look_at('{"ignition": {"version": "3.4.0"}}', True).problems == []
    assert "It is no JSON" in look_at(HEADER, True).problems[0]
    assert 'no "ignition"' in look_at("{}", True).problems[0]


def doubled(first: str, next_one: str) -> str:
    """Each line holds twice what the line before holds."""
    return f"k0: &b0 {first}\n" + "".join(f"k{n}: &b{n} {next_one.format(n - 1, n - 1)}\n" for n in range(1, 40))


@pytest.mark.parametrize(
    "hostile",
    [
        "[" * 20_000,
        "a: " + "{a: " * 9_000,
        doubled("[x, x]", "[*b{}, *b{}]"),
        doubled("{a: b}", "{{<<: [*b{}, *b{}]}}"),
        "? [a, b]\n: 1\n",
        "!!python/object/apply:os.system [id]\n",
        "\x00",
        "x" * LONGEST,
    ],
    ids=["deep-list", "deep-map", "aliases", "merges", "complex-key", "object", "nul", "long"],
)
def test_hostile_user_data_is_looked_at_to_its_end(hostile):
    """Each of these would keep a parser without bounds busy, or bring it down."""
    look = look_at(HEADER + hostile, False)

    assert look.kind
    assert all(len(problem) < 1000 for problem in look.problems)


@pytest.mark.parametrize(
    "malformed",
    [
        HEADER + 'a: "\\UFFFFFFFF"\n',
        HEADER + f"%YAML 1.{'1' * 5000}\n---\na: 1\n",
        "".join(f"Content-Type: multipart/m; boundary=b{n}\n\n--b{n}\n" for n in range(1200)),
        "MIME-Version: 1.0\nContent-Type: message/rfc822\n\n" + "Content-Type: message/rfc822\n\n" * 2000,
    ],
    ids=["escape", "version", "multipart", "rfc822"],
)
def test_what_the_parsers_stumble_over_gets_words(malformed):
    assert "It is malformed" in " ".join(problems(malformed))


@pytest.mark.parametrize(("deep", "is_told"), [(50, False), (51, True)])
def test_it_is_looked_at_down_to_fifty_deep(deep, is_told):
    nested = "packages: " + "[" * (deep - 1) + "x" + "]" * (deep - 1)

    assert bool(problems(HEADER + nested)) == is_told


def test_no_key_takes_what_yaml_does_not_have():
    assert {kind for kinds in CLOUD_CONFIG.values() for kind in kinds} <= {"map", "seq", "str", "int", "bool", "null"}
