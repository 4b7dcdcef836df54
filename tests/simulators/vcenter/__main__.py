"""Run a vCenter by hand: `python -m tests.simulators.vcenter [-- -vms=10 -addresses]`. Ctrl-C ends it."""

import signal
import sys

from tests.simulators.vcenter import Vcenter

options = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:] if word != "--")
with Vcenter(**{name: value or True for name, value in options.items()}) as vcenter:
    address = vcenter.address
    print(f"Host {address.host}, port {address.port}, user {address.username}, password {address.password}")
    print(f"Hosts: {', '.join(vcenter.hosts())}")
    print(address.ca_certificates, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        signal.pause()
    except KeyboardInterrupt:
        sys.exit()
