"""The guest operating systems that a template can name: a constant list, with CloudStack's words."""

import uuid
from dataclasses import dataclass

from networks.models.offerings import OsFamily

# Ids are made of names, so that they are the same on every server.
_NAMESPACE = uuid.UUID("6f1f8a0e-6f0b-4f0e-9a54-2f6f0d1c9a11")


@dataclass(frozen=True)
class OsCategory:
    name: str
    family: OsFamily = OsFamily.LINUX

    @property
    def uuid(self) -> uuid.UUID:
        return uuid.uuid5(_NAMESPACE, f"category {self.name}")


@dataclass(frozen=True)
class OsType:
    description: str
    category: OsCategory

    @property
    def uuid(self) -> uuid.UUID:
        return uuid.uuid5(_NAMESPACE, self.description)


_NAMES = {
    OsCategory("CentOS"): ("CentOS 7", "CentOS Stream 9", "CentOS Stream 10"),
    OsCategory("Debian"): ("Debian GNU/Linux 10", "Debian GNU/Linux 11", "Debian GNU/Linux 12", "Debian GNU/Linux 13"),
    OsCategory("Fedora"): ("Fedora Linux", "Fedora CoreOS"),
    OsCategory("Other"): ("Other Linux", "Alpine Linux", "Arch Linux", "Flatcar Container Linux", "Rocky Linux 9"),
    OsCategory("RedHat"): ("Red Hat Enterprise Linux 8", "Red Hat Enterprise Linux 9", "Red Hat Enterprise Linux 10"),
    OsCategory("SUSE"): ("SUSE Linux Enterprise Server 15", "openSUSE Leap 15"),
    OsCategory("Ubuntu"): ("Ubuntu 20.04 LTS", "Ubuntu 22.04 LTS", "Ubuntu 24.04 LTS"),
    OsCategory("Windows", OsFamily.WINDOWS): (
        "Windows 10",
        "Windows 11",
        "Windows Server 2016",
        "Windows Server 2019",
        "Windows Server 2022",
        "Windows Server 2025",
    ),
}
OS_CATEGORIES = tuple(_NAMES)
OS_TYPES = tuple(OsType(name, category) for category, names in _NAMES.items() for name in names)
_BY_ID = {os_type.uuid: os_type for os_type in OS_TYPES}
_BY_NAME = {os_type.description: os_type for os_type in OS_TYPES}


def by_id(id: uuid.UUID) -> OsType | None:
    return _BY_ID.get(id)


def by_name(description: str) -> OsType | None:
    """None for words that a template's owner made up."""
    return _BY_NAME.get(description)
