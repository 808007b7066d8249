"""A client that is gone in the middle of its calls."""

import asyncio
from functools import partial

from ..clients import Client
from ..eras import MODERN
from ..suite import Case
from ..waiting import eventually
from ..world import Route

STARTED_SECONDS = 10.0
SEEN_SECONDS = 3.0


def cases(world):
    for client in world.clients.values():
        yield Case(
            f"{client.name} dies in the middle of a call to each backend, and each sees it leave",
            partial(leaves, world, client),
        )


async def leaves(world, kind_of):
    """A client process of its own is killed, so that its sockets close without a word."""
    client = Client(kind_of.kind, world.paths, suffix="-doomed")
    await client.start()
    try:
        tags = {backend: world.tag() for backend in world.reachable_ours(client) if sees(world, client, backend)}
        for backend, tag in tags.items():
            route = await route_of(world, client, backend)
            route.begin("long", {"seconds": 30, "tag": tag})
            await backend.saw("started", tag, STARTED_SECONDS)
    finally:
        await client.process.kill()
    await asyncio.gather(*(sees_it(backend, tag) for backend, tag in tags.items()))


async def sees_it(backend, tag):
    """A modern client that leaves cancels by that, and a legacy backend is told so by a message; either may come first."""

    def left():
        return any({"event": event, "tag": tag} in backend.recorded() for event in ("disconnected", "cancelled"))

    await eventually(f"{backend.name} sees that the client of {tag} has left", left, SEEN_SECONDS)


def sees(world, client, backend):
    """Whether a backend is to see that the client has left. One that keeps no sessions and speaks 2026-07-28 is spoken to
    in that era, where leaving cancels; a legacy client's leaving must not, so the gateway stays."""
    return world.is_direct or MODERN in client.kind.eras or not backend.kind.mixes_up


async def route_of(world, client, backend):
    if world.is_direct:
        return Route(await client.connect(backend.url, backend.name), "")
    return Route(await world.session(client, world.gateway.url, "gateway"), backend.prefix)
