"""Which driver serves which kind of endpoint."""

from networks.hypervisors.base import EndpointAddress, Refused


def driver(kind: str, address: EndpointAddress) -> object:
    """The driver for an endpoint of `kind`, as CloudStack names hypervisors ("KVM").

    Which protocols of `base` it serves is asked with isinstance. Raises Refused for a kind that has
    no driver, and for an address that cannot be one.
    """
    # Imported here, so that a process that never meets a kind of hypervisor never loads its library.
    if kind == "KVM":
        from networks.hypervisors.kvm import KvmHost

        return KvmHost(address)
    raise Refused(f"There is no driver for hypervisors of the kind {kind!r}.")
