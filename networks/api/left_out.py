"""Commands of CloudStack's that this product leaves out on purpose: refused with a text that says so."""

from extdhcp_site.api.registry import leave_out

LEFT_OUT: dict[str, tuple[str, ...]] = {
    "Volumes beyond ROOT": ("createVolume", "attachVolume", "detachVolume", "deleteVolume", "uploadVolume"),
    "Changes of a ROOT volume": ("resizeVolume", "migrateVolume", "extractVolume"),
    "Snapshots": (
        "createSnapshot",
        "deleteSnapshot",
        "revertSnapshot",
        "createSnapshotPolicy",
        "createVMSnapshot",
        "deleteVMSnapshot",
        "revertToVMSnapshot",
    ),
    "Public IP addresses and NAT": (
        "associateIpAddress",
        "disassociateIpAddress",
        "enableStaticNat",
        "disableStaticNat",
        "createIpForwardingRule",
        "deleteIpForwardingRule",
        "createPortForwardingRule",
        "deletePortForwardingRule",
    ),
    "Firewalls": (
        "createFirewallRule",
        "deleteFirewallRule",
        "createEgressFirewallRule",
        "deleteEgressFirewallRule",
        "createSecurityGroup",
        "deleteSecurityGroup",
        "authorizeSecurityGroupIngress",
        "authorizeSecurityGroupEgress",
        "createNetworkACL",
        "deleteNetworkACL",
        "createNetworkACLList",
        "deleteNetworkACLList",
        "replaceNetworkACLList",
    ),
    "Load balancers": (
        "createLoadBalancerRule",
        "deleteLoadBalancerRule",
        "assignToLoadBalancerRule",
        "removeFromLoadBalancerRule",
    ),
    "VPCs": ("createVPC", "updateVPC", "restartVPC", "deleteVPC"),
    "VPNs": (
        "createRemoteAccessVpn",
        "deleteRemoteAccessVpn",
        "addVpnUser",
        "removeVpnUser",
        "createVpnGateway",
        "deleteVpnGateway",
        "createVpnConnection",
        "deleteVpnConnection",
        "createVpnCustomerGateway",
        "deleteVpnCustomerGateway",
    ),
    "Affinity groups": ("createAffinityGroup", "deleteAffinityGroup", "updateVMAffinityGroup"),
    "Groups of VMs": ("createInstanceGroup", "updateInstanceGroup", "deleteInstanceGroup"),
    "Projects": ("createProject", "updateProject", "deleteProject", "addAccountToProject"),
    "Disk offerings": ("createDiskOffering", "updateDiskOffering", "deleteDiskOffering"),
    "ISO images to install from": ("registerIso", "updateIso", "deleteIso", "attachIso", "detachIso"),
    "Registered user data": ("registerUserData", "deleteUserData", "linkUserDataToTemplate"),
    "Limits of what an account may have": ("updateResourceLimit", "updateResourceCount"),
    "Passwords that a key pair opens": ("getVMPassword",),
    "Moves of a VM to another account": ("assignVirtualMachine",),
}

for _what, _names in LEFT_OUT.items():
    leave_out(f"{_what} are", *_names)
