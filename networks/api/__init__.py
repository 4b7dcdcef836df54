"""The commands that show and change the cloud; importing this package registers them."""

from networks.api import (  # noqa: F401
    empty,
    endpoints,
    guest_data,
    infrastructure,
    keys,
    left_out,
    networks,
    nics,
    offerings,
    os_types,
    rest,
    tags,
    templates,
    vms,
    waiting,
)
