"""What a user must be allowed in a pool for all that this driver does there.

Source: XenAPI reference, class session; xen-api, rbac.ml: a permission is a call's name in lower case, or "http/" and a
handler's. A local superuser has no list.
"""

from networks.hypervisors.bounded import AnswerRefused
from networks.hypervisors.xenserver_session import Session

# Everybody may read.
NEEDED = frozenset(
    {
        "http/get_export_raw_vdi",
        "http/put_import_raw_vdi",
        "network.create",
        "network.destroy",
        "pbd.create",
        "pbd.plug",
        "pool.create_vlan_from_pif",
        "sr.introduce",
        "sr.scan",
        "task.cancel",
        "task.create",
        "task.destroy",
        "vbd.create",
        "vbd.eject",
        "vbd.insert",
        "vdi.add_to_other_config",
        "vdi.copy",
        "vdi.create",
        "vdi.destroy",
        "vdi.resize",
        "vdi.set_name_label",
        "vdi.set_other_config",
        "vif.create",
        "vif.destroy",
        "vif.plug",
        "vif.unplug",
        "vm.add_to_other_config",
        "vm.clean_shutdown",
        "vm.clone",
        "vm.create",
        "vm.destroy",
        "vm.hard_reboot",
        "vm.hard_shutdown",
        "vm.pool_migrate",
        "vm.resume_on",
        "vm.start_on",
        "vm.unpause",
    }
)


def missing(session: Session) -> tuple[str, ...]:
    own = session.credential
    if session.call("session.get_is_local_superuser", own) is True:
        return ()
    allowed = session.call("session.get_rbac_permissions", own)
    if not isinstance(allowed, list):
        raise AnswerRefused("The pool does not say what the user may do.")
    return tuple(sorted(NEEDED - {str(one).lower() for one in allowed}))
