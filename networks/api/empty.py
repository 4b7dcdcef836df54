"""Lists of what this product does not have. Clients ask for them all the same, and fail unless they are answered."""

from dataclasses import dataclass

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.answers import Answer
from extdhcp_site.api.owners import OwnedListParams
from extdhcp_site.api.parameters import Values
from extdhcp_site.api.registry import EVERYBODY, ListCommand, command
from networks.api.fields import text


@dataclass(frozen=True)
class Empty:
    """A list that is always empty: CloudStack's word for a row, of what, and the clients that ask."""

    name: str
    word: str
    things: str
    asked_by: str


LISTS = (
    Empty("listPublicIpAddresses", "publicipaddress", "public IP addresses", "Libcloud, Ansible, Terraform"),
    Empty("listPortForwardingRules", "portforwardingrule", "port forwarding rules", "Libcloud, Ansible"),
    Empty("listIpForwardingRules", "ipforwardingrule", "static NAT rules", "Libcloud"),
    Empty("listFirewallRules", "firewallrule", "firewall rules", "Libcloud, Ansible"),
    Empty("listEgressFirewallRules", "firewallrule", "egress firewall rules", "Libcloud, Ansible"),
    Empty("listLoadBalancerRules", "loadbalancerrule", "load balancer rules", "Libcloud, Ansible"),
    Empty("listVPCs", "vpc", "virtual private clouds", "Libcloud, Ansible, Terraform"),
    Empty("listVPCOfferings", "vpcoffering", "offerings of virtual private clouds", "Libcloud, Ansible"),
    Empty("listNetworkACLLists", "networkacllist", "lists of network ACLs", "Libcloud, Ansible"),
    Empty("listNetworkACLs", "networkacl", "network ACLs", "Libcloud, Ansible"),
    Empty("listRouters", "router", "virtual routers", "Libcloud, Ansible"),
    Empty("listSecurityGroups", "securitygroup", "security groups", "Libcloud, Ansible"),
    Empty("listAffinityGroups", "affinitygroup", "affinity groups", "Libcloud, Ansible, Terraform"),
    Empty("listAffinityGroupTypes", "affinityGroupType", "types of affinity groups", "Libcloud"),
    Empty("listInstanceGroups", "instancegroup", "groups of VMs", "Ansible"),
    Empty("listProjects", "project", "projects", "Libcloud, Ansible, Terraform"),
    Empty("listSnapshots", "snapshot", "snapshots of volumes", "Ansible"),
    Empty("listVMSnapshot", "vmSnapshot", "snapshots of VMs", "Ansible"),
    Empty("listDiskOfferings", "diskoffering", "disk offerings", "Libcloud, Ansible, Terraform"),
    Empty("listIsos", "iso", "ISO images to install from", "Ansible"),
    Empty("listUserData", "userdata", "registered user data", "Ansible"),
    Empty("listRemoteAccessVpns", "remoteaccessvpn", "VPNs for remote access", "CloudMonkey"),
    Empty("listVpnUsers", "vpnuser", "users of VPNs", "Ansible"),
    Empty("listVpnGateways", "vpngateway", "VPN gateways", "Libcloud, Ansible"),
    Empty("listVpnConnections", "vpnconnection", "VPN connections", "Libcloud, Ansible"),
    Empty("listVpnCustomerGateways", "vpncustomergateway", "VPN customer gateways", "Libcloud, Ansible"),
    Empty("listResourceLimits", "resourcelimit", "limits of what an account may have", "Libcloud, Ansible"),
)


class EmptyAnswer(Answer):
    id = text("uuid", "never shown: there is none")


class EmptyList(ListCommand):
    """Filters of all kinds are ignored: there is nothing to narrow."""

    params = OwnedListParams

    def rows(self, caller: Caller, params: Values) -> tuple[()]:
        return ()


def _declare(empty: Empty) -> None:
    members = {
        "__doc__": f"List the {empty.things}: always none, since they are not in this product. {empty.asked_by} ask.",
        "__module__": __name__,
        "answer": (empty.word, EmptyAnswer),
    }
    command(since="1.1", roles=EVERYBODY, name=empty.name)(type(empty.name, (EmptyList,), members))


for _empty in LISTS:
    _declare(_empty)
