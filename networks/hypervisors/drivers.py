"""Which driver serves which kind of endpoint."""

from networks.hypervisors.base import EndpointAddress, Refused


def driver(kind: str, address: EndpointAddress, host: str = "") -> object:
    """The driver for an endpoint of `kind`, as CloudStack names hypervisors ("KVM").

    Behind a pool or a vCenter are many hosts: `host` names the one that is to be acted on, as the hypervisor calls
    it. Without one the driver answers for the endpoint as a whole: which VMs run, addresses, events.

    Which protocols of `base` it serves is asked with isinstance. Raises Refused for a kind that has
    no driver, and for an address that cannot be one.
    """
    # Imported here, so that a process that never meets a kind of hypervisor never loads its library.
    match kind:
        case "KVM":
            from networks.hypervisors.kvm import KvmHost

            return KvmHost(address)
        case "XenServer":
            from networks.hypervisors.xenserver import XenHost

            return XenHost(address, host)
        case "VMware":
            from networks.hypervisors.vsphere import VsphereHost

            return VsphereHost(address, host)
    raise Refused(f"There is no driver for hypervisors of the kind {kind!r}.")
