"""The settings that govern config drives."""

import uuid

from extdhcp_site.configuration.models import define, switch
from networks.volume_label import check_label

GROUP = "Config drives"


def _label(text: str) -> str:
    check_label(text)
    return text


def _uuid(text: str) -> str:
    return str(uuid.UUID(text))


LABEL = define(
    "vm.configdrive.label",
    "config",
    _label,
    "Volume label of config drives, where neither template nor zone says another. The spec's scripts look for config; "
    "stock cloud-init, cloudbase-init, Ignition, Afterburn and CloudStack's scripts look for config-2 only.",
    group=GROUP,
)
ON_PRIMARY_STORAGE = define(
    "vm.configdrive.primarypool.enabled",
    "true",
    switch,
    "Config drives lie beside the ROOT volume, where its primary storage holds files; false: on the host itself. "
    "Those that are there stay where they are.",
    group=GROUP,
)
# A migration writes a random one for each installation.
CLOUD_IDENTIFIER = define(
    "cloud.identifier",
    str(uuid.UUID(int=0)),
    _uuid,
    "What guests read in cloud_identifier.txt; made at installation.",
    group=GROUP,
)
