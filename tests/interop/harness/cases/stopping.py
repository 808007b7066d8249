"""SIGTERM."""

from functools import partial

from ..clients import Client
from ..suite import Case, expect_equal
from ..waiting import eventually
from ..world import Route

DRAIN = {"drain": {"delay": "500ms", "timeout": "8s"}}
DRAIN_SECONDS = 8.5
RED_SECONDS = 2.0
CALL_SECONDS = 3


def cases(world):
    for name in ("py1", "py2-legacy", "node-legacy", "rmcp-legacy"):
        client = world.clients[name]
        yield Case(
            f"{name} gets the end of its call while the gateway drains, which then exits with 0",
            partial(drains, world, client),
        )


async def drains(world, kind_of):
    gateway = world.new_gateway(f"gateway-stopping-{kind_of.name}", **DRAIN)
    await gateway.start(await world.public_names())
    client = Client(kind_of.kind, world.paths, suffix="-stopping")
    await client.start()
    backend = world.backends["py1"]
    route = Route(await client.connect(gateway.url, "gateway"), backend.prefix)
    tag = world.tag()
    call = route.begin("long", {"seconds": CALL_SECONDS, "tag": tag})
    await backend.saw("started", tag, RED_SECONDS)
    gateway.terminate()

    async def red():
        return await gateway.status("/readyz") != 200

    await eventually("readiness goes red", red, RED_SECONDS)
    expect_equal("whether the call is still running", call.answer.done(), False)
    expect_equal("its answer", (await call.result())["content"][0]["text"], tag)
    expect_equal("the exit code", await gateway.process.exited(DRAIN_SECONDS), 0)
    await client.process.stop()
