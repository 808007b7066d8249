"""One backend dies and comes back."""

import asyncio
import time
from functools import partial

from ..clients import CallError
from ..suite import Case, expect, expect_equal
from ..waiting import eventually

VICTIM = "py1"
# Long enough for the probes to turn the backend down and for two refreshes of the catalog.
OUTAGE_SECONDS = 5.0
FAST_SECONDS = 3.0
BACK_SECONDS = 20.0


def cases(world):
    victim = world.backends[VICTIM]
    outage = Outage(world, victim)
    yield Case(f"{VICTIM} is killed: the tools of the others keep working, the list stays whole", outage.begins)
    for client in world.clients.values():
        yield Case(
            f"{client.name} calls the dead {VICTIM} and soon gets an error that names it",
            partial(fails_fast, world, client, victim),
        )
    yield Case(f"{VICTIM} is started again on its port", victim.restart)
    for client in world.clients.values():
        yield Case(
            f"{client.name} calls {VICTIM} again without connecting anew", partial(works_again, world, client, victim)
        )


class Outage:
    """Kills the victim, and looks at everything else meanwhile."""

    def __init__(self, world, victim):
        self.world = world
        self.victim = victim

    async def begins(self):
        clients = await self.world.connected()
        whole = {client: await (await self.world.through(client)).list_tools() for client in clients}
        await self.victim.process.kill()
        until = time.monotonic() + OUTAGE_SECONDS
        rounds = 0
        while time.monotonic() < until:
            await asyncio.gather(*(self.others_work(client) for client in clients))
            for client in clients:
                now = await (await self.world.through(client)).list_tools()
                expect_equal(f"the list of {client.name}", now, whole[client])
            rounds += 1
        return f"{rounds} rounds in {OUTAGE_SECONDS:g} s"

    async def others_work(self, client):
        for backend in self.world.backends.values():
            if backend is not self.victim:
                tool, arguments = backend.kind.samples[0]
                result = await (await self.world.route(client, backend)).call(tool, arguments)
                expect(not result.get("isError"), f"{tool} of {backend.name} fails: {result}")


async def fails_fast(world, client, victim):
    route = await world.route(client, victim)
    started = time.monotonic()
    try:
        result = await route.call("echo", {"message": "anybody there?"})
    except CallError as error:
        said = error.message
    else:
        expect(result.get("isError"), f"a dead backend answers {result}")
        said = result["content"][0]["text"]
    took = time.monotonic() - started
    expect(took < FAST_SECONDS, f"the error took {took:.1f} s")
    expect(victim.name in said, f"the error does not name the backend: {said!r}")
    return said


async def works_again(world, client, victim):
    route = await world.route(client, victim)

    async def answers():
        try:
            return not (await route.call("echo", {"message": "back?"})).get("isError")
        except CallError:
            return False

    await eventually(f"{victim.name} answers", answers, BACK_SECONDS)
