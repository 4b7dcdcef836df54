"""Run a simulated pool by hand: `python -m tests.simulators.xenserver [--vms N] [--port P]`; Ctrl-C ends it."""

import argparse
import signal

from . import XenServer

# What an administrator has made ready: where VLANs of guests go, and where their discs lie.
GUEST_NETWORK = ("cloud-guest", "eth1")
ISO_REPOSITORY = "ConfigDriveISOs"
# What a guest of it is given: within the network of `make demo`.
CIDR = "192.168.0.0/16"
BOOT_SECONDS = 10.0
_ENDING = {signal.SIGINT, signal.SIGTERM}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulators.xenserver", description=__doc__)
    parser.add_argument("--vms", type=int, default=0, metavar="N", help="running VMs to begin with")
    parser.add_argument("--port", type=int, default=0, metavar="P", help="instead of a free one")
    options = parser.parse_args()
    # Before the first thread starts: a signal that nobody has blocked would end the process where it stands.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    with XenServer(port=options.port) as xen:
        xen.add_network(*GUEST_NETWORK)
        xen.add_iso_sr(ISO_REPOSITORY)
        xen.guests.automatic(BOOT_SECONDS, CIDR)
        xen.add_vms(options.vms, CIDR)
        print(f"URL          {xen.url}")
        print(f"user         {xen.username}")
        print(f"password     {xen.password}")
        print(f"fingerprint  {xen.fingerprint}")
        print(f"Guests report an address of {CIDR} {BOOT_SECONDS:.0f} s after they start. Ctrl-C ends it.", flush=True)
        signal.sigwait(_ENDING)


if __name__ == "__main__":
    main()
