"""Waiting for what gives no event of its own. Every wait has a bound."""

import asyncio
import inspect
import socket
import time

from .failure import Failed

PAUSE = 0.02

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


async def eventually(what, holds, within):
    """Wait until `holds()` gives something true, and return that; `holds` may be async."""
    deadline = time.monotonic() + within
    while True:
        value = holds()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"not within {within:g} s: {what}")
        await asyncio.sleep(PAUSE)


async def listening(port, process, within=20.0):
    """Wait until something accepts connections on `port`, unless `process` dies first."""

    async def accepts():
        process.expect_alive()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await eventually(f"{process.name} listens on port {port}", accepts, within)
