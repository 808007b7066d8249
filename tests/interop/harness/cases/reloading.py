"""The configuration changes while calls run."""

import asyncio
import copy
import itertools
from functools import partial

from ..suite import Case, expect, expect_equal
from ..waiting import eventually

STEADY = "py1"
CHANGED = "py2"
DENIED = "fail"
STEPS = 20
NOTICE_SECONDS = 10.0


def cases(world):
    for client in world.clients.values():
        yield Case(
            f"{client.name} loses no call and no stream when another backend's tools change, and is told of the change",
            partial(reloads, world, client),
        )


async def reloads(world, client):
    session = await world.through(client)
    before = await names(session)
    denied = world.backends[CHANGED].prefix + DENIED
    expect(denied in before, f"{denied} is not there to begin with")
    await session.ask("watch")
    forget(session.changes)

    async with Traffic(world, client) as traffic:
        world.gateway.write(denying(world.gateway.config, CHANGED, DENIED))
        await told(session, denied, there=False)
        expect_equal("the list", await names(session), [name for name in before if name != denied])
        forget(session.changes)
        world.gateway.write(world.gateway.config)
        await world.gateway.reload()
        await told(session, denied, there=True)
        expect_equal("the list", await names(session), before)
    return f"{traffic.answered} calls meanwhile"


async def names(session):
    return [tool["name"] for tool in await session.list_tools()]


def denying(config, backend_name, tool):
    """`config` with one tool of one backend denied."""
    changed = copy.deepcopy(config)
    for backend in changed["backends"]:
        if backend["name"] == backend_name:
            backend["tools"] = {"deny": [tool]}
    return changed


def forget(queue):
    while not queue.empty():
        queue.get_nowait()


async def told(session, name, there):
    """Wait for `list_changed`; when it comes, the new list must be there to be had."""
    await asyncio.wait_for(session.changes.get(), NOTICE_SECONDS)

    async def listed():
        return (name in await names(session)) is there

    await eventually(f"{name} is {'listed' if there else 'gone'}", listed, NOTICE_SECONDS)


class Traffic:
    """Calls that run all the while: a long stream with progress on the steady backend, short ones on every backend."""

    def __init__(self, world, client):
        self.world = world
        self.client = client
        self.answered = 0
        self.over = asyncio.Event()

    async def __aenter__(self):
        steady = await self.world.route(self.client, self.world.backends[STEADY])
        self.stream = steady.begin("progress", {"steps": STEPS, "interval_ms": 100}, progress=True)
        await asyncio.wait_for(self.stream.progressed.wait(), NOTICE_SECONDS)
        self.short = asyncio.create_task(self.keep_calling())
        return self

    async def __aexit__(self, *problem):
        result = await self.stream.result()
        self.over.set()
        await self.short
        if problem[0] is None:
            expect_equal("the end of the stream", result["content"][0]["text"], f"{STEPS} steps")
            expect_equal("its progress", [step["progress"] for step in self.stream.progress], list(range(1, STEPS + 1)))

    async def keep_calling(self):
        for backend in itertools.cycle(self.world.ours):
            if self.over.is_set():
                return
            tag = self.world.tag()
            result = await (await self.world.route(self.client, backend)).call("slow", {"tag": tag})
            expect_equal(f"the answer of {backend.name}", result["content"][0]["text"], tag)
            self.answered += 1
