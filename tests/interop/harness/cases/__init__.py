"""The tests, one file an idea. Each module has `cases(world)`."""

from . import (
    calling,
    cancelling,
    children,
    endpoints,
    leaving,
    listing,
    load,
    matrix,
    metrics,
    outage,
    reloading,
    replicas,
    stopping,
)

# What can be asked of a backend without the gateway too; it shows that servers, clients and harness are right.
DIRECT = [listing, calling, cancelling, leaving, load]
# Order matters a little: what breaks things comes after what wants them whole, and the counters are read near the end.
THROUGH = [listing, calling, cancelling, leaving, load, outage, reloading, replicas, metrics, stopping, children, endpoints]
