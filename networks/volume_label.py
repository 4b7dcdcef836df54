"""Which volume labels a config drive may bear. Pure: zones, templates, the setting and the builder ask here."""

import re

# Joliet has room for 16 characters, of the 32 in the primary descriptor.
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,16}")
# Volumes that cloud-init's other data sources take for theirs (NoCloud, OpenNebula, SmartOS, OVF, Azure, ...).
_CLAIMED_LABELS = re.compile(r"cidata|context|cdrom|cloudmd|metadata|ovf.*|rd_rdfe_stable.*", re.IGNORECASE)


class InvalidLabel(ValueError):
    """A volume label that the format cannot hold, or that would send a guest's cloud-init elsewhere."""


def check_label(label: str) -> None:
    """Raise InvalidLabel unless `label` is 1 to 16 of A-Z, a-z, 0-9, "_", "-" and free to use.

    Sources: Joliet specification, volume identifier; cloud-init's ds-identify, for the claimed ones.
    """
    if not _LABEL.fullmatch(label):
        raise InvalidLabel(f"Label {label[:40]!r}: use 1 to 16 characters of A-Z, a-z, 0-9, '_' and '-'.")
    if _CLAIMED_LABELS.fullmatch(label):
        raise InvalidLabel(f"Label {label!r} belongs to another cloud-init data source; use 'config' or 'config-2'.")
