"""A XenServer or XCP-ng pool that exists only here: XenAPI as XML-RPC over TLS, for the real client library.

    with XenServer(hosts=2) as xen:
        session = XenAPI.Session(xen.url, ...)
        session.login_with_password(xen.username, xen.password, "1.0", "my program")

`python -m tests.simulators.xenserver` runs one by hand.

It keeps the rules that a driver meets: states, references, errors and their parameters, tasks, events, drives, discs
and files, and what a host reaches. No guest runs: what guests say and do is said by `XenServer.guests`, and what goes
wrong by `XenServer.faults`.

What it does not model, apart from what its modules name: classes that are not in `classes.py`; JSON-RPC; plain HTTP;
`get_all_records_where` on sessions and tasks; `allowed_operations` beyond what the power state says; times other than
those in `pace`; and what real storage, networks and guests do.
"""

from .simulator import XenServer

__all__ = ["XenServer"]
