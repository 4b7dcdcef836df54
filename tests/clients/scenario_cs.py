"""`python scenario_cs.py NAME` with either version of `cs`: what the client makes of it, as JSON."""

import json
import os
import sys

from cs import CloudStack, CloudStackApiException, read_config

cloud = CloudStack(**read_config())


def pages():
    vms = cloud.listVirtualMachines(fetch_list=True, pagesize=250)
    return {"names": len({vm["name"] for vm in vms}), "rows": len(vms)}


def wrong_key():
    return refusal(cloud.listVirtualMachines)


def unknown_command():
    return refusal(cloud.plantTree)


def failing_job():
    [size] = cloud.listServiceOfferings(name="Larger than any host", fetch_list=True)
    return refusal(
        cloud.deployVirtualMachine,
        name=f"too-large-{os.getpid()}",
        zoneid=cloud.listZones()["zone"][0]["id"],
        templateid=cloud.listTemplates(templatefilter="executable")["template"][0]["id"],
        serviceofferingid=size["id"],
        networkids=cloud.listNetworks(keyword="corporate-100")["network"][0]["id"],
        fetch_result=True,
    )


def refusal(call, **parameters):
    try:
        return {"answered": call(**parameters)}
    except CloudStackApiException as error:
        return {"code": error.error["errorcode"], "text": error.error["errortext"]}


print(json.dumps({f.__name__: f for f in (pages, wrong_key, unknown_command, failing_job)}[sys.argv[1]]()))
