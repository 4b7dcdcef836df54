"""Run by the system's Python: let cloud-init read a drive's files and print as JSON what it then knows.

Arguments: the root of cloud-init's package, a directory whose cloud/seed/config_drive has the files, and
the MAC addresses of the guest.
"""

import json
import logging
import sys

package, work, *macs = sys.argv[1:]
sys.path.insert(0, f"{package}/usr/lib/python3/dist-packages")

from cloudinit import helpers, util  # noqa: E402
from cloudinit.config.schema import SchemaValidationError, validate_cloudconfig_schema  # noqa: E402
from cloudinit.sources.DataSourceConfigDrive import DataSourceConfigDrive  # noqa: E402

complaints = []


class Listener(logging.Handler):
    def emit(self, record):
        complaints.append(f"{record.levelname}: {record.getMessage()}")


def check_by_schema(part):
    if part.startswith("#cloud-config"):
        try:
            validate_cloudconfig_schema(util.load_yaml(part), strict=True)
        except SchemaValidationError as error:
            complaints.append(str(error))


logging.getLogger().addHandler(Listener(level=logging.WARNING))

paths = helpers.Paths({"cloud_dir": f"{work}/cloud", "run_dir": f"{work}/run", "templates_dir": f"{work}/templates"})
source = DataSourceConfigDrive({}, None, paths)
source.known_macs = {mac: f"eth{number}" for number, mac in enumerate(macs)}
if not source.get_data():
    sys.exit("cloud-init refuses the drive: " + "; ".join(complaints))

vendor_data = source.vendordata_raw or []
vendor_data = [vendor_data] if isinstance(vendor_data, str) else vendor_data
for part in vendor_data:
    check_by_schema(part)
source.get_vendordata()

knows = {
    "instance_id": source.get_instance_id(),
    "hostname": source.get_hostname().hostname,
    "public_keys": source.get_public_ssh_keys(),
    "user_data": (source.get_userdata_raw() or b"").hex(),
    "user_data_parts": [part.get_content_type() for part in source.get_userdata().walk() if not part.is_multipart()],
    "vendor_data": vendor_data,
    "network": source.network_config,
    "complaints": complaints,
}
print(json.dumps(knows))
