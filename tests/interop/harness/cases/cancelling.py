"""Cancelling a call."""

from functools import partial

from ..clients import CallError
from ..failure import Failed
from ..suite import Case, expect_equal
from ..world import Route

SEEN_SECONDS = 5.0
# A process may have to be run for it.
STARTED_SECONDS = 15.0
# Whose request ids two fresh sessions count alike.
TWIN_CLIENT = "node-legacy"


def cases(world):
    for client in world.clients.values():
        for backend in world.reachable_ours(client):
            yield Case(
                f"{client.name} cancels a call to {backend.name}, which sees it, and another call goes on",
                partial(cancels, world, client, backend),
            )
    for backend in world.ours:
        # mcp-go without sessions knows a call by its request id alone: directly, one client cancels another's call.
        if not (world.is_direct and backend.kind.mixes_up):
            yield Case(
                f"cancelling a call to {backend.name} leaves alone the call with the same id in another session",
                partial(cancels_only_its_own, world, world.clients[TWIN_CLIENT], backend),
            )


async def cancels(world, client, backend):
    await cancels_and_goes_on(await world.route(client, backend), backend, world.tag(), world.tag())


async def cancels_and_goes_on(route, backend, tag, other_tag):
    """Cancel the call that carries `tag`; the one that carries `other_tag` must be answered."""
    call = await begin_long(route, backend, tag, 30)
    other = await begin_long(route, backend, other_tag, 0.4)
    await route.session.cancel(call)
    await backend.saw("cancelled", tag, SEEN_SECONDS)
    await expect_cancelled(call)
    expect_equal("the other call's answer", (await other.result())["content"][0]["text"], other_tag)


async def cancels_only_its_own(world, client, backend):
    """The first call is cancelled while the second, begun later, runs under the same id."""
    url, prefix = (backend.url, "") if world.is_direct else (world.gateway.url, backend.prefix)
    mine, other = [Route(await client.connect(url, f"{backend.name}-{name}"), prefix) for name in ("mine", "other")]
    tag, other_tag = world.tag(), world.tag()
    call = await begin_long(mine, backend, tag, 30)
    other_call = await begin_long(other, backend, other_tag, 1)
    await mine.session.cancel(call)
    await expect_cancelled(call)
    expect_equal("the other call's answer", (await other_call.result())["content"][0]["text"], other_tag)
    await backend.saw("cancelled", tag, SEEN_SECONDS)
    for route in (mine, other):
        await route.session.close()


async def begin_long(route, backend, tag, seconds):
    """Begin a long call, and wait until the backend runs it."""
    call = route.begin("long", {"seconds": seconds, "tag": tag})
    await backend.saw("started", tag, STARTED_SECONDS)
    return call


async def expect_cancelled(call):
    try:
        raise Failed(f"the cancelled call gave {await call.result()}")
    except CallError as error:
        expect_equal("how the cancelled call ended", error.code, "cancelled")
