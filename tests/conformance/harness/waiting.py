"""Waiting for what gives no event of its own. Every wait has a bound."""

import socket
import time

from .failure import Failed

PAUSE = 0.02
LISTEN_SECONDS = 30.0

_given = set()


def free_port():
    """A port of 127.0.0.1 that nobody listens on, and that was not given out before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def eventually(what, holds, within):
    """Wait until `holds()` gives something true, and return that."""
    deadline = time.monotonic() + within
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"not within {within:g} s: {what}")
        time.sleep(PAUSE)


def listening(port, process):
    """Wait until something accepts connections on `port`, unless `process` dies first."""

    def accepts():
        process.expect_alive()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    eventually(f"{process.name} listens", accepts, LISTEN_SECONDS)
