"""A public SSH key as OpenSSH writes it: which text is one, and what people paste instead."""

import base64
import binascii
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

LONGEST = 16384
KINDS = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
# NIST SP 800-131A; and what OpenSSH reads at most.
LEAST_RSA_BITS, MOST_RSA_BITS = 2048, 16384

# The armour of PEM, OpenSSH and RFC 4716, PuTTY's, and OpenSSH's body without its armour.
_PRIVATE = re.compile(r"BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File|b3BlbnNzaC1rZXktdjE")
_OTHER_FORMAT = re.compile(r"-----? ?BEGIN [A-Z0-9 ]*PUBLIC KEY")


class NotAPublicKey(ValueError):
    """The text says what to do. It quotes nothing of what was given: that may be a secret."""


def public_key_line(text: str) -> str:
    """`type base64 [comment]` with one blank between, from a text that may have white space around it.

    Raises NotAPublicKey. Sources: sshd(8), "AUTHORIZED_KEYS FILE FORMAT"; RFC 4253, 6.6; OpenSSH's PROTOCOL.u2f.
    """
    _refuse_what_people_paste_instead(text)
    kind, _, rest = text.strip().partition(" ")
    body, _, comment = rest.strip().partition(" ")
    _refuse_another_kind(kind, rest)
    _check_key(kind, body)
    return " ".join(part for part in (kind, body, comment.strip()) if part)


def _refuse_what_people_paste_instead(text: str) -> None:
    if _PRIVATE.search(text):
        raise NotAPublicKey(
            "this is a private key, which nobody but you should ever see. Make a new pair with ssh-keygen, "
            "and give the line of its .pub file."
        )
    if _OTHER_FORMAT.search(text):
        raise NotAPublicKey("this key has another format. Convert it: ssh-keygen -i -f FILE (for PEM: -m PKCS8).")
    if len(text) > LONGEST:
        raise NotAPublicKey(f"this has {len(text)} characters; a public key has {LONGEST} at most.")
    if len(text.strip().splitlines()) > 1:
        raise NotAPublicKey("this has several lines. Give one key, on one line; each further one has its own name.")
    if not text.strip().isprintable():
        raise NotAPublicKey("this contains control characters. Give the line of the .pub file as it is.")


def _refuse_another_kind(kind: str, rest: str) -> None:
    if kind in KINDS:
        return
    if kind.endswith("-cert-v01@openssh.com"):
        raise NotAPublicKey("this is a certificate. Give the public key that it was made for.")
    if kind == "ssh-dss":
        raise NotAPublicKey("this is a DSA key, which OpenSSH no longer takes. Make another: ssh-keygen -t ed25519.")
    if any(word in KINDS for word in rest.split()):
        raise NotAPublicKey("this has options before the key. Give type, key and comment only.")
    raise NotAPublicKey(f"this is no public key. Give one line as in a .pub file; its type is {', '.join(KINDS)}.")


def _check_key(kind: str, body: str) -> None:
    try:
        # The library passes over what is no base64.
        exact = base64.b64encode(base64.b64decode(body, validate=True)).decode() == body
        key = load_ssh_public_key(f"{kind} {body}".encode()) if exact else None
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        key = None
    if key is None:
        raise NotAPublicKey(f"this {kind} key is damaged or cut off. Give the whole line of the .pub file.")
    if isinstance(key, RSAPublicKey) and not LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS:
        raise NotAPublicKey(
            f"this RSA key has {key.key_size} bits; guests take {LEAST_RSA_BITS} to {MOST_RSA_BITS}. "
            "Make another: ssh-keygen -t ed25519."
        )
