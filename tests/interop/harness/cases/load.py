"""Many calls at once."""

import asyncio
import itertools
import time

from ..suite import Case, expect_equal
from ..world import Route

CALLS = 1000
SESSIONS_EACH = 2
BOUND_SECONDS = 60.0


def cases(world):
    async def check():
        return await answers_all(world)

    yield Case(f"{CALLS:,} concurrent calls from every client are all answered, each with its own answer", check, 120)


async def answers_all(world):
    routes = [route async for route in open_routes(world)]
    started = time.monotonic()
    tagged = [(world.tag(), route) for route in itertools.islice(itertools.cycle(routes), CALLS)]
    calls = [route.begin("slow", {"tag": tag}) for tag, route in tagged]
    async with asyncio.timeout(BOUND_SECONDS):
        results = await asyncio.gather(*(call.result(BOUND_SECONDS) for call in calls))
    took = time.monotonic() - started
    expect_equal("the answers", [said(result) for result in results], [tag for tag, _ in tagged])
    sessions = {(route.session.client.name, route.session.name) for route in routes}
    for session in {route.session for route in routes}:
        await session.close()
    return f"{took:.1f} s over {len(sessions)} sessions"


async def open_routes(world):
    """Sessions for this test alone, a few for each client, and from each session a route to every backend."""
    for client in await world.connected():
        for number in range(SESSIONS_EACH):
            if world.is_direct:
                for backend in world.reachable_ours(client):
                    yield Route(await client.connect(backend.url, f"load-{backend.name}-{number}"), "")
            else:
                session = await client.connect(world.gateway.url, f"load-{number}")
                for backend in world.ours:
                    yield Route(session, backend.prefix, world.calls_through)


def said(result):
    return result["content"][0]["text"]
