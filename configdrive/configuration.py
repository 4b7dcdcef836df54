"""The settings that govern config drives."""

import uuid

from extdhcp_site.configuration.models import define
from networks.volume_label import check_label


def _label(text: str) -> str:
    check_label(text)
    return text


def _uuid(text: str) -> str:
    return str(uuid.UUID(text))


LABEL = define(
    "vm.configdrive.label",
    "config",
    _label,
    "Volume label of config drives. The spec's scripts look for config; stock cloud-init, cloudbase-init, "
    "Ignition and Afterburn look for config-2 only.",
)
# A migration writes a random one for each installation.
CLOUD_IDENTIFIER = define(
    "cloud.identifier", str(uuid.UUID(int=0)), _uuid, "What guests read in cloud_identifier.txt; made at installation."
)
