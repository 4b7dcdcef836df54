"""`python scenario_libcloud.py NAME` with Apache Libcloud: what the client makes of it, as JSON."""

import json
import os
import sys

from libcloud.common.types import InvalidCredsError, ProviderError
from libcloud.compute.providers import get_driver

cloud = get_driver("cloudstack")(
    os.environ["CLOUDSTACK_KEY"],
    os.environ["CLOUDSTACK_SECRET"],
    url=os.environ["CLOUDSTACK_ENDPOINT"],
    secure=False,
)


def pages():
    """Libcloud itself never asks for a page."""
    nodes = cloud.list_nodes()
    rows = [
        vm["id"]
        for page in (1, 2, 3)
        for vm in cloud._sync_request("listVirtualMachines", params={"page": page, "pagesize": 250})["virtualmachine"]
    ]
    return {"unpaged": len({node.id for node in nodes}), "rows": len(rows), "names": len(set(rows))}


def wrong_key():
    try:
        return {"answered": cloud.list_locations()}
    except InvalidCredsError:
        return {"code": 401}


def unknown_command():
    try:
        return {"answered": cloud._sync_request("plantTree")}
    except ProviderError as error:
        return {"code": error.http_code, "text": error.value}


def failing_job():
    [size] = [size for size in cloud.list_sizes() if size.name == "Larger than any host"]
    networks = [network for network in cloud.ex_list_networks() if network.name == "corporate-100"]
    try:
        node = cloud.create_node(
            f"too-large-{os.getpid()}",
            size,
            cloud.list_images()[0],
            location=cloud.list_locations()[0],
            networks=networks,
            ex_start_vm=True,
        )
    except Exception as error:  # that is what it raises
        return {"text": str(error)}
    return {"answered": node.id}


print(json.dumps({f.__name__: f for f in (pages, wrong_key, unknown_command, failing_job)}[sys.argv[1]]()))
