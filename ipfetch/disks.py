"""Looking for an address on a guest's disk."""

from extdhcp_site.jobs import tasks


@tasks.task
def read_disk(nic_id: int) -> None:
    """Task: read the lease files on the disk of the NIC's VM."""
