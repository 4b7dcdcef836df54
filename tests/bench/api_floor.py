"""What a page of VMs costs at the least: the same rows and columns, by the same joins, with bare SQL and orjson."""

import sqlite3
from typing import Any

import orjson

_PAGE = "SELECT id FROM networks_virtualmachine ORDER BY id DESC LIMIT {size}"
_VMS = """
SELECT vm.id, vm.uuid, vm.name, vm.display_name, vm.state, account.name, domain.name, domain.uuid, vm.created_at,
  zone.uuid, zone.name, host.uuid, host.name, vm.account_id, template.uuid, template.name, template.password_enabled,
  size.uuid, size.name, size.cpus, size.mhz, size.memory_mib, vm.hypervisor, template.guest_os_type, vm.ssh_keys,
  vm.drive_use, vm.needs_restart, vm.error_text, vm.group_name,
  (SELECT job.uuid FROM jobs_asyncjob job WHERE job.busy_with = vm.uuid)
FROM networks_virtualmachine vm
  LEFT JOIN accounts_account account ON account.id = vm.account_id
  LEFT JOIN accounts_domain domain ON domain.id = account.domain_id
  LEFT JOIN networks_zone zone ON zone.id = vm.zone_id
  LEFT JOIN networks_serviceoffering size ON size.id = vm.service_offering_id
  LEFT JOIN networks_template template ON template.id = vm.template_id
  LEFT JOIN networks_host host ON host.id = vm.host_id
WHERE vm.id IN ({ids}) ORDER BY vm.id DESC
"""
_NICS = """
SELECT nic.vm_id, nic.uuid, nic.device_id, network.uuid, network.name, offering.guest_type, nic.is_default,
  nic.mac_address, nic.ip4_address, nic.ip6_address, network.gateway, network.cidr, network.vlan, nic.address_state,
  nic.address_source, nic.address_seen_at, nic.secondary_addresses,
  (SELECT GROUP_CONCAT(own.address) FROM networks_nicsecondaryip own WHERE own.nic_id = nic.id)
FROM networks_nic nic
  LEFT JOIN networks_network network ON network.id = nic.network_id
  LEFT JOIN networks_networkoffering offering ON offering.id = network.offering_id
WHERE nic.vm_id IN ({ids}) ORDER BY nic.is_default DESC, nic.device_id
"""
_TAGS = "SELECT vm_id, {key}, value FROM networks_resourcetag WHERE vm_id IN ({ids})"


def page(cursor: Any, vendor: str, size: int) -> bytes:
    """The first page, of `size` VMs, as the bare rows in JSON."""
    # `key` is a word of MariaDB's.
    key = "`key`" if vendor == "mysql" else '"key"'
    # In one statement with the joins, MariaDB joins the whole fleet before it counts to `size`; and unless they are
    # outer ones, it begins with the smallest table.
    cursor.execute(_PAGE.format(size=size))
    ids = ",".join(str(row[0]) for row in cursor.fetchall())
    cursor.execute(_VMS.format(ids=ids))
    vms = cursor.fetchall()
    cursor.execute(_NICS.format(ids=ids))
    nics = cursor.fetchall()
    cursor.execute(_TAGS.format(ids=ids, key=key))
    return orjson.dumps([vms, nics, cursor.fetchall()])


def cursor_of(connection: Any) -> Any:
    """A bare cursor on a connection of its own, to the database that Django's `connection` is configured for."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return sqlite3.connect(settings["NAME"]).cursor()
    import MySQLdb  # not needed where there is no MariaDB

    bare = MySQLdb.connect(
        host=settings["HOST"], port=int(settings["PORT"]), user=settings["USER"], password=settings["PASSWORD"],
        database=settings["NAME"], charset="utf8mb4",
    )  # fmt: skip
    return bare.cursor()
