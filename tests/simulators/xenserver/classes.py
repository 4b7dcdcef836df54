"""The classes of XenAPI that are simulated, with the fields of the real ones: data, and how it is read.

One line a field: its path (as in the data model: "/" becomes "_" on the wire and "__" in the expressions of
`get_all_records_where`), its type, whether it may be written once the object exists (RW) and what it is at first where
that is not the empty value of its type. `*` marks what a constructor cannot do without.

Source: the data model of xapi (ocaml/idl/datamodel*.ml, https://github.com/xapi-project/xen-api). VM, host, VIF, VDI,
PIF and task were compared by eye with generated clients, some of them years old; fields that are newer than those, most
of VM_guest_metrics' last ones and the other classes are from knowledge, and were not compared with anything.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

NULL = "OpaqueRef:NULL"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_FIELDS = {
    "session": """
        uuid                            string
        this_host                       ref host
        this_user                       ref user
        last_active                     datetime
        pool                            bool
        other_config                    map     RW
        is_local_superuser              bool
        subject                         ref subject
        validation_time                 datetime
        auth_user_sid                   string
        auth_user_name                  string
        rbac_permissions                set
        tasks                           set
        parent                          ref session
        originator                      string
        client_certificate              bool
    """,
    "task": """
        uuid                            string
        name/label                      string
        name/description                string
        allowed_operations              set
        current_operations              map
        created                         datetime
        finished                        datetime
        status                          string          pending
        resident_on                     ref host
        progress                        float   RW
        type                            string          <none/>
        result                          string
        error_info                      set
        other_config                    map     RW
        subtask_of                      ref task
        subtasks                        set
        backtrace                       string          ()
    """,
    "pool": """
        uuid                            string
        name/label                      string  RW
        name/description                string  RW
        master                          ref host
        default_SR                      ref SR  RW
        suspend_image_SR                ref SR  RW
        crash_dump_SR                   ref SR  RW
        other_config                    map     RW
        ha_enabled                      bool
        ha_configuration                map
        ha_statefiles                   set
        ha_host_failures_to_tolerate    int
        ha_plan_exists_for              int
        ha_allow_overcommit             bool    RW
        ha_overcommitted                bool
        blobs                           map
        tags                            set     RW
        gui_config                      map     RW
        health_check_config             map     RW
        wlb_url                         string
        wlb_username                    string
        wlb_enabled                     bool    RW
        wlb_verify_cert                 bool    RW
        redo_log_enabled                bool
        redo_log_vdi                    ref VDI
        vswitch_controller              string
        restrictions                    map
        metadata_VDIs                   set
        ha_cluster_stack                string
        allowed_operations              set
        current_operations              map
        guest_agent_config              map
        cpu_info                        map
        policy_no_vendor_device         bool    RW
        live_patching_disabled          bool    RW
        igmp_snooping_enabled           bool
        uefi_certificates               string  RW
        custom_uefi_certificates        string
        is_psr_pending                  bool    RW
        tls_verification_enabled        bool
        repositories                    set
        client_certificate_auth_enabled bool
        client_certificate_auth_name    string
        repository_proxy_url            string
        repository_proxy_username       string
        repository_proxy_password       ref secret
        migration_compression           bool    RW
        coordinator_bias                bool    RW
        local_auth_max_threads          int     RW      8
        ext_auth_max_threads            int     RW      1
        ext_auth_cache_enabled          bool    RW
        ext_auth_cache_size             int     RW      50
        ext_auth_cache_expiry           int     RW      300
        telemetry_uuid                  ref secret
        telemetry_frequency             string          weekly
        telemetry_next_collection       datetime
        last_update_sync                datetime
        update_sync_frequency           string          weekly
        update_sync_day                 int
        update_sync_enabled             bool
        recommendations                 map
        license_server                  map     RW
        ha_reboot_vm_on_internal_shutdown bool  RW      true
        limit_console_sessions          bool    RW
        vm_console_idle_timeout         int     RW
    """,
    "host": """
        uuid                            string
        name/label                      string  RW
        name/description                string  RW
        memory/overhead                 int
        allowed_operations              set
        current_operations              map
        API_version/major               int             2
        API_version/minor               int             21
        API_version/vendor              string          XenSource
        API_version/vendor_implementation map
        enabled                         bool            true
        software_version                map
        other_config                    map     RW
        capabilities                    set
        cpu_configuration               map
        sched_policy                    string          credit
        supported_bootloaders           set
        resident_VMs                    set
        logging                         map     RW
        PIFs                            set
        suspend_image_sr                ref SR  RW
        crash_dump_sr                   ref SR  RW
        crashdumps                      set
        patches                         set
        updates                         set
        PBDs                            set
        host_CPUs                       set
        cpu_info                        map
        hostname                        string  RW
        address                         string  RW
        metrics                         ref host_metrics
        license_params                  map
        ha_statefiles                   set
        ha_network_peers                set
        blobs                           map
        tags                            set     RW
        external_auth_type              string
        external_auth_service_name      string
        external_auth_configuration     map
        edition                         string          xcp-ng
        license_server                  map     RW
        bios_strings                    map
        power_on_mode                   string
        power_on_config                 map
        local_cache_sr                  ref SR
        chipset_info                    map
        PCIs                            set
        PGPUs                           set
        PUSBs                           set
        ssl_legacy                      bool
        guest_VCPUs_params              map     RW
        display                         string  RW      enabled
        virtual_hardware_platform_versions set
        control_domain                  ref VM
        updates_requiring_reboot        set
        features                        set
        iscsi_iqn                       string
        multipathing                    bool
        uefi_certificates               string
        certificates                    set
        editions                        set
        pending_guidances               set
        tls_verification_enabled        bool
        last_software_update            datetime
        https_only                      bool
        latest_synced_updates_applied   string          unknown
        numa_affinity_policy            string          default_policy
        pending_guidances_recommended   set
        pending_guidances_full          set
        last_update_hash                string
        ssh_enabled                     bool            true
        ssh_enabled_timeout             int
        ssh_expiry                      datetime
        console_idle_timeout            int
        ssh_auto_mode                   bool
        max_cstate                      string
        secure_boot                     bool
        ntp_mode                        string          Factory
        ntp_custom_servers              set
        timezone                        string          UTC
    """,
    "host_metrics": """
        uuid                            string
        memory/total                    int
        memory/free                     int
        live                            bool            true
        last_updated                    datetime
        other_config                    map     RW
    """,
    "VM": """
        uuid                            string
        allowed_operations              set
        current_operations              map
        name/label                      string  RW
        name/description                string  RW
        power_state                     string          Halted
        user_version                    int     RW*
        is_a_template                   bool    RW*
        is_default_template             bool
        suspend_VDI                     ref VDI RW
        resident_on                     ref host
        scheduled_to_be_resident_on     ref host
        affinity                        ref host RW*
        memory/overhead                 int
        memory/target                   int
        memory/static_max               int     *
        memory/dynamic_max              int     *
        memory/dynamic_min              int     *
        memory/static_min               int     *
        VCPUs/params                    map     RW*
        VCPUs/max                       int     *       1
        VCPUs/at_startup                int     *       1
        actions/after_softreboot        string  RW      soft_reboot
        actions/after_shutdown          string  RW*     destroy
        actions/after_reboot            string  RW*     restart
        actions/after_crash             string  *       restart
        consoles                        set
        VIFs                            set
        VBDs                            set
        VUSBs                           set
        crash_dumps                     set
        VTPMs                           set
        PV/bootloader                   string  RW*
        PV/kernel                       string  RW*
        PV/ramdisk                      string  RW*
        PV/args                         string  RW*
        PV/bootloader_args              string  RW*
        PV/legacy_args                  string  RW*
        HVM/boot_policy                 string  *
        HVM/boot_params                 map     RW*
        HVM/shadow_multiplier           float           1.0
        platform                        map     RW*
        PCI_bus                         string  RW*
        other_config                    map     RW*
        domid                           int             -1
        domarch                         string
        last_boot_CPU_flags             map
        is_control_domain               bool
        metrics                         ref VM_metrics
        guest_metrics                   ref VM_guest_metrics
        last_booted_record              string
        recommendations                 string  RW*
        xenstore_data                   map     RW
        ha_always_run                   bool
        ha_restart_priority             string
        is_a_snapshot                   bool
        snapshot_of                     ref VM
        snapshots                       set
        snapshot_time                   datetime
        transportable_snapshot_id       string
        blobs                           map
        tags                            set     RW
        blocked_operations              map     RW
        snapshot_info                   map
        snapshot_metadata               string
        parent                          ref VM
        children                        set
        bios_strings                    map
        protection_policy               ref VMPP
        is_snapshot_from_vmpp           bool
        snapshot_schedule               ref VMSS
        is_vmss_snapshot                bool
        appliance                       ref VM_appliance
        start_delay                     int
        shutdown_delay                  int
        order                           int
        VGPUs                           set
        attached_PCIs                   set
        suspend_SR                      ref SR  RW
        version                         int
        generation_id                   string
        hardware_platform_version       int     RW
        has_vendor_device               bool
        requires_reboot                 bool
        reference_label                 string
        domain_type                     string          hvm
        NVRAM                           map
        pending_guidances               set
        pending_guidances_recommended   set
        pending_guidances_full          set
        groups                          set
    """,
    "VM_metrics": """
        uuid                            string
        memory/actual                   int
        VCPUs/number                    int
        VCPUs/utilisation               map
        VCPUs/CPU                       map
        VCPUs/params                    map
        VCPUs/flags                     map
        state                           set
        start_time                      datetime
        install_time                    datetime
        last_updated                    datetime
        other_config                    map     RW
        hvm                             bool
        nested_virt                     bool
        nomigrate                       bool
        current_domain_type             string          unspecified
        numa_optimised                  bool
        numa_nodes                      int
        numa_node_memory                map
    """,
    "VM_guest_metrics": """
        uuid                            string
        os_version                      map
        netbios_name                    map
        PV_drivers_version              map
        PV_drivers_up_to_date           bool            true
        memory                          map
        disks                           map
        networks                        map
        other                           map
        services                        map
        last_updated                    datetime
        other_config                    map     RW
        live                            bool            true
        can_use_hotplug_vbd             string          unspecified
        can_use_hotplug_vif             string          unspecified
        PV_drivers_detected             bool            true
    """,
    "VIF": """
        uuid                            string
        allowed_operations              set
        current_operations              map
        device                          string  *
        network                         ref network *
        VM                              ref VM  *
        MAC                             string  *
        MTU                             int     *       1500
        other_config                    map     RW*
        currently_attached              bool
        status_code                     int
        status_detail                   string
        runtime_properties              map
        qos/algorithm_type              string  RW*
        qos/algorithm_params            map     RW*
        qos/supported_algorithms        set
        metrics                         ref VIF_metrics
        MAC_autogenerated               bool
        locking_mode                    string          network_default
        ipv4_allowed                    set
        ipv6_allowed                    set
        ipv4_configuration_mode         string          None
        ipv4_addresses                  set
        ipv4_gateway                    string
        ipv6_configuration_mode         string          None
        ipv6_addresses                  set
        ipv6_gateway                    string
    """,
    "VBD": """
        uuid                            string
        allowed_operations              set
        current_operations              map
        VM                              ref VM  *
        VDI                             ref VDI *
        device                          string
        userdevice                      string  RW*
        bootable                        bool    RW*
        mode                            string  *       RO
        type                            string  RW*     CD
        unpluggable                     bool    RW
        storage_lock                    bool
        empty                           bool    *
        other_config                    map     RW*
        currently_attached              bool
        status_code                     int
        status_detail                   string
        runtime_properties              map
        qos/algorithm_type              string  RW*
        qos/algorithm_params            map     RW*
        qos/supported_algorithms        set
        metrics                         ref VBD_metrics
    """,
    "VDI": """
        uuid                            string
        name/label                      string
        name/description                string
        allowed_operations              set
        current_operations              map
        SR                              ref SR  *
        VBDs                            set
        crash_dumps                     set
        virtual_size                    int     *
        physical_utilisation            int
        type                            string  *       user
        sharable                        bool    *
        read_only                       bool    *
        other_config                    map     RW*
        storage_lock                    bool
        location                        string
        managed                         bool            true
        missing                         bool
        parent                          ref VDI
        xenstore_data                   map     RW
        sm_config                       map     RW
        is_a_snapshot                   bool
        snapshot_of                     ref VDI
        snapshots                       set
        snapshot_time                   datetime
        tags                            set     RW
        allow_caching                   bool
        on_boot                         string          persist
        metadata_of_pool                ref pool
        metadata_latest                 bool
        is_tools_iso                    bool
        cbt_enabled                     bool
    """,
    "SR": """
        uuid                            string
        name/label                      string
        name/description                string
        allowed_operations              set
        current_operations              map
        VDIs                            set
        PBDs                            set
        virtual_allocation              int
        physical_utilisation            int
        physical_size                   int
        type                            string
        content_type                    string
        shared                          bool
        other_config                    map     RW
        tags                            set     RW
        sm_config                       map     RW
        blobs                           map
        local_cache_enabled             bool
        introduced_by                   ref DR_task
        clustered                       bool
        is_tools_sr                     bool
    """,
    "PBD": """
        uuid                            string
        host                            ref host *
        SR                              ref SR  *
        device_config                   map     *
        currently_attached              bool
        other_config                    map     RW
    """,
    "network": """
        uuid                            string
        name/label                      string  RW
        name/description                string  RW
        allowed_operations              set
        current_operations              map
        VIFs                            set
        PIFs                            set
        MTU                             int     RW      1500
        other_config                    map     RW*
        bridge                          string
        managed                         bool            true
        blobs                           map
        tags                            set     RW
        default_locking_mode            string          unlocked
        assigned_ips                    map
        purpose                         set
    """,
    "PIF": """
        uuid                            string
        device                          string
        network                         ref network
        host                            ref host
        MAC                             string
        MTU                             int             1500
        VLAN                            int             -1
        metrics                         ref PIF_metrics
        physical                        bool
        currently_attached              bool            true
        ip_configuration_mode           string          None
        IP                              string
        netmask                         string
        gateway                         string
        DNS                             string
        bond_slave_of                   ref Bond
        bond_master_of                  set
        VLAN_master_of                  ref VLAN
        VLAN_slave_of                   set
        management                      bool
        other_config                    map     RW
        disallow_unplug                 bool
        tunnel_access_PIF_of            set
        tunnel_transport_PIF_of         set
        ipv6_configuration_mode         string          None
        IPv6                            set
        ipv6_gateway                    string
        primary_address_type            string          IPv4
        managed                         bool            true
        properties                      map
        capabilities                    set
        igmp_snooping_status            string          unknown
        sriov_physical_PIF_of           set
        sriov_logical_PIF_of            set
        PCI                             ref PCI
    """,
    "VLAN": """
        uuid                            string
        tagged_PIF                      ref PIF
        untagged_PIF                    ref PIF
        tag                             int             -1
        other_config                    map     RW
    """,
}

# What xapi keeps in step by itself: a reference of one class, and the set of another that lists who refers to it.
RELATIONS = {
    ("VIF", "VM"): ("VM", "VIFs"),
    ("VIF", "network"): ("network", "VIFs"),
    ("VBD", "VM"): ("VM", "VBDs"),
    ("VBD", "VDI"): ("VDI", "VBDs"),
    ("VDI", "SR"): ("SR", "VDIs"),
    ("VDI", "snapshot_of"): ("VDI", "snapshots"),
    ("VM", "resident_on"): ("host", "resident_VMs"),
    ("VM", "parent"): ("VM", "children"),
    ("VM", "snapshot_of"): ("VM", "snapshots"),
    ("PBD", "SR"): ("SR", "PBDs"),
    ("PBD", "host"): ("host", "PBDs"),
    ("PIF", "host"): ("host", "PIFs"),
    ("PIF", "network"): ("network", "PIFs"),
    ("VLAN", "tagged_PIF"): ("PIF", "VLAN_slave_of"),
    ("task", "subtask_of"): ("task", "subtasks"),
}


@dataclass(frozen=True)
class Field:
    """`kind` is string, int, float, bool, datetime, ref, set or map (the last two of strings)."""

    name: str
    column: str
    kind: str
    target: str
    writable: bool
    required: bool
    default: object


_EMPTY: dict[str, object] = {
    "string": "",
    "int": 0,
    "float": 0.0,
    "bool": False,
    "datetime": EPOCH,
    "ref": NULL,
    "set": (),
    "map": MappingProxyType({}),
}
_READ: dict[str, Callable[[str], object]] = {
    "string": str,
    "int": int,
    "float": float,
    "bool": lambda text: text == "true",
}


def _field(line: str) -> Field:
    path, kind, *rest = line.split()
    target = rest.pop(0) if kind == "ref" else ""
    access = rest.pop(0) if rest and rest[0] in ("RW", "RW*", "*") else ""
    default = _READ[kind](rest[0]) if rest else _EMPTY[kind]
    return Field(
        path.replace("/", "_"), path.replace("/", "__"), kind, target, "RW" in access, access.endswith("*"), default
    )


def _fields(table: str) -> Mapping[str, Field]:
    fields = [_field(line) for line in table.split("\n") if line.strip()]
    return {field.name: field for field in fields}


CLASSES: Mapping[str, Mapping[str, Field]] = {name: _fields(table) for name, table in _FIELDS.items()}
