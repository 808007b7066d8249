"""Two servers that are one backend, of which one dies and comes back."""

import asyncio
import time
from functools import partial

from ..backends import other_kinds
from ..clients import CallError
from ..gateway import Gateway
from ..raw import Raw
from ..suite import Case, expect, expect_equal
from ..transports import Replicas
from ..waiting import eventually
from ..world import Route
from .cancelling import begin_long

SESSIONS = 6
CALLS = 3
AT_ONCE_SECONDS = 3.0
# A replica that failed three times is left out for ten seconds.
BACK_SECONDS = 20.0
LEGACY = ("py2-legacy", "node-legacy")
# They have no session: each call goes where the least is under way.
MODERN = ("py2-auto", "rmcp-auto")
CLIENTS = LEGACY + MODERN


def cases(world):
    kind = next(kind for kind in other_kinds(world.paths) if kind.over == "replicas")
    pair = Two(world, kind)
    yield Case("a session stays with the replica that it began at, and both have some", pair.stay)
    yield Case("calls that belong to no session are spread over both", pair.spread)
    yield Case("one replica is killed: a call under way there gets an error at once", pair.one_dies)
    yield Case("the sessions of the dead replica go on with the other, without an error", pair.go_on)
    for name in CLIENTS:
        yield Case(f"{name} calls on without connecting anew", partial(pair.calls, name))
    yield Case("the dead replica comes back, and new sessions begin there again", pair.comes_back)
    yield Case("the gateway of the replicas stops", pair.stop)


class Two:
    """Both replicas, their gateway, and sessions that all cases share."""

    def __init__(self, world, kind):
        self.world = world
        self.server = Replicas(kind, world.paths, "-endpoints")
        self.gateway = Gateway(world.binary, world.paths, [self.server], "gateway-endpoints")
        self.raw = Raw(self.gateway)
        self.tool = f"{self.server.prefix}long"
        self.routes = {}
        # By a session's id, the number of its replica.
        self.homes = {}
        self.victim = None

    async def up(self):
        """Start everything that is not there yet."""
        if self.routes:
            return
        await self.server.start()
        await self.gateway.start([self.tool])
        for name in CLIENTS:
            session = await self.world.clients[name].connect(self.gateway.url, self.gateway.name)
            self.routes[name] = Route(session, self.server.prefix)

    async def stay(self):
        await self.up()
        clients_homes = set()
        for name in LEGACY:
            homes = {await self.home_of(self.routes[name]) for _ in range(CALLS)}
            expect_equal(f"the number of replicas that {name} was at", len(homes), 1)
            clients_homes |= homes
        for _ in range(SESSIONS):
            session = await self.raw.initialize()
            homes = {await self.home(session) for _ in range(CALLS)}
            expect_equal("the number of replicas that one session was at", len(homes), 1)
            self.homes[session] = homes.pop()
        expect_equal("the replicas that have sessions", clients_homes | set(self.homes.values()), {0, 1})

    async def spread(self):
        await self.up()
        for name in MODERN:
            homes = {await self.home_of(self.routes[name]) for _ in range(CALLS * 2)}
            expect_equal(f"the replicas that {name} was at", homes, {0, 1})

    async def home(self, session):
        """The number of the replica that answers a call."""
        tag = self.world.tag()
        result = await self.raw.call(session, self.tool, {"seconds": 0, "tag": tag})
        expect_equal("the result", result["content"][0]["text"], tag)
        return self.number(tag)

    async def home_of(self, route):
        """The same for a client's session."""
        tag = self.world.tag()
        await route.call("long", {"seconds": 0, "tag": tag})
        return self.number(tag)

    def number(self, tag):
        """The number of the replica that has begun the call that carries `tag`."""
        fact = {"event": "started", "tag": tag}
        [number] = [number for number, replica in enumerate(self.server.each) if fact in replica.recorded()]
        return number

    async def one_dies(self):
        """The one that has a client's session, and the call."""
        await self.up()
        route, tag = self.routes["py2-legacy"], self.world.tag()
        call = await begin_long(route, self.server, tag, 60)
        self.victim = self.number(tag)
        await self.server.each[self.victim].process.kill()
        started = time.monotonic()
        try:
            result = await call.result()
        except CallError as error:
            said = error.message
        else:
            expect(result.get("isError"), f"a call that was cut off gives {result}")
            said = result["content"][0]["text"]
        took = time.monotonic() - started
        expect(took < AT_ONCE_SECONDS, f"the error took {took:.1f} s")
        return said

    async def go_on(self):
        left = 1 - self.victim
        homes = await asyncio.gather(*map(self.home, self.homes))
        expect_equal("where the sessions are now", set(homes), {left})

    async def calls(self, name):
        result = await self.routes[name].call("echo", {"message": name})
        expect(not result.get("isError"), f"echo fails: {result}")

    async def comes_back(self):
        await self.server.each[self.victim].start()

        async def begins_there():
            return await self.home(await self.raw.initialize()) == self.victim

        await eventually("a new session begins at the replica that was dead", begins_there, BACK_SECONDS)
        homes = {await self.home(session) for session in self.homes}
        expect_equal("where the sessions are that had to move", homes, {1 - self.victim})

    async def stop(self):
        self.gateway.terminate()
        expect_equal("the exit code", await self.gateway.process.exited(BACK_SECONDS), 0)
