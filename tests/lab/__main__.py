"""`python -m tests.lab up|down|status|selftest`."""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.lab import LabError, bring_up, describe, is_up, tear_down, why_not
from tests.lab.system import say


def status() -> int:
    if not is_up():
        print(f"The lab is down. {why_not() or 'This machine can run it: python -m tests.lab up.'}")
        return 1
    lab = describe()
    for host in lab.hosts:
        guests = host.virsh("list", "--name").split()
        print(f"{host.name}  {host.uri}  guests: {', '.join(guests) or 'none'}")
    for vlan in (lab.network, lab.silent_network):
        print(f"VLAN {vlan.vlan}  {vlan.bridge}  {vlan.cidr}  {'external DHCP' if vlan.has_dhcp else 'no DHCP server'}")
    for mac, ip in lab.dhcp.leases().items():
        print(f"lease  {mac}  {ip}")
    return 0


def selftest() -> int:
    return subprocess.call([sys.executable, "-m", "pytest", "-v", Path(__file__).with_name("test_lab.py")])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=sys.modules["tests.lab"].__doc__)
    parser.add_argument("what", choices=("up", "down", "status", "selftest"))
    what = parser.parse_args().what
    try:
        if what == "up":
            bring_up()
        elif what == "down":
            tear_down()
        else:
            return status() if what == "status" else selftest()
    except LabError as error:
        say(str(error))
        return 1
    return 0


sys.exit(main())
