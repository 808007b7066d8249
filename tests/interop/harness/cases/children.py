"""Processes that the gateway runs: how many there are, and what becomes of them."""

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from ..backends import OUR_PROGRESS, other_kinds
from ..clients import CallError
from ..gateway import Gateway, texts
from ..raw import Raw
from ..suite import Case, expect, expect_equal
from ..transports import Child
from ..waiting import eventually
from ..world import Route
from .cancelling import begin_long

# A loaded machine takes long to start what is written in Python.
PATIENT = {"health": {"interval": "20s", "timeout": "20s", "rise": 1, "fall": 3, "max_backoff": "20s"}}
DRAIN = {"drain": {"delay": "0s", "timeout": "1s"}}
LEGACY_ONLY = {"protocol": "legacy"}
AT_ONCE_SECONDS = 3.0
# What a process gets to end by itself, when asked, and for certain; and the drain.
END_SECONDS = 10.0
CASE_SECONDS = 90.0
SESSIONS = 10
SLOW_START_SECONDS = 7
CANCELLED_SECONDS = 20
AT_THE_SAME_TIME = 4


def cases(world):
    def case(name, check, *arguments):
        return Case(name, partial(check, world, *arguments), CASE_SECONDS)

    for client, kind, settings in (
        ("py2-legacy", "py1-stdio", LEGACY_ONLY),
        ("node-legacy", "py1-shared", LEGACY_ONLY),
        ("py2-auto", "gosdk-stdio", {}),
        ("rmcp-legacy", "every-stdio", LEGACY_ONLY),
    ):
        yield case(
            f"{client} gets an error at once when {kind} is killed in its call, and its next call works",
            is_killed,
            client,
            kind,
            settings,
        )
    yield case(f"{SESSIONS} sessions have {SESSIONS} processes, which end with them", one_each)
    yield case(f"{SESSIONS} sessions share one process, which outlives them", one_for_all)
    yield case("sessions beyond `max_instances` are refused until one has ended", is_full)
    yield case("whoever shares a process hears of the progress of its own calls, and of no other", progresses_apart)
    yield case("no process is started to be asked for a resource that nobody lists", starts_nothing)
    yield case("a server that is slow to start is known for what it is", starts_slowly)
    yield case("a call that was cancelled, and so is never answered, is no failure of its server", is_cancelled)
    yield case("no process outlives the gateway when it is asked to stop in the middle of a call", stops)
    yield case("no process outlives the gateway when it is interrupted, whatever it makes of that", stops_stubborn)
    yield case("servers that end with their input do not outlive the gateway when that is killed", dies)


def child(world, name, label, **settings):
    """A server of that name, for one test alone."""
    kind = next(kind for kind in other_kinds(world.paths) if kind.name == name)
    return Child(kind, world.paths, f"-{label}", **settings)


@asynccontextmanager
async def running(world, label, *servers):
    """A gateway with these servers, of which nothing is left in the end."""
    gateway = Gateway(world.binary, world.paths, servers, f"gateway-{label}", **PATIENT, **DRAIN)
    try:
        await gateway.start([f"{server.prefix}echo" for server in servers])
        await asyncio.gather(*(settled(gateway, server) for server in servers))
        yield gateway
    finally:
        await gateway.process.stop()
        left = {pid: server for server in servers for pid in server.pids()}
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    expect_equal("what is left of the servers", {pid: server.name for pid, server in left.items()}, {})


async def settled(gateway, server):
    """Wait until the gateway has found a server healthy, and has no more than one process of it, which it lists from; at
    first it may have another, to find out what it is."""

    async def healthy():
        backends = (await gateway.admin.get("/backends")).json()["backends"]
        return any((backend["name"], backend["state"]) == (server.name, "healthy") for backend in backends)

    await eventually(f"{server.name} is healthy", healthy, END_SECONDS)
    if server.settings.get("protocol") == "legacy":
        await eventually(f"{server.name} has one process", lambda: len(server.pids()) == 1, END_SECONDS)


async def is_killed(world, client, kind, settings):
    server = child(world, kind, f"killed-{client}", **settings)
    async with running(world, f"killed-{kind}", server) as gateway:
        others = server.pids()
        route = Route(await world.clients[client].connect(gateway.url, gateway.name), server.prefix)
        await route.call("echo", {"message": "there?"})
        call = await begin(world, route, server)
        pids = server.pids()
        # In a session of its own the call has the newest process, else the only one.
        victims = pids - others or pids
        expect_equal("the number of processes that may serve the call", len(victims), 1)
        os.kill(victims.pop(), signal.SIGKILL)
        started = time.monotonic()
        said = await expect_failed(call)
        took = time.monotonic() - started
        expect(took < AT_ONCE_SECONDS, f"the error took {took:.1f} s")
        expect(server.name in said, f"the error does not name the backend: {said!r}")
        result = await route.call("echo", {"message": "again?"})
        expect(not result.get("isError"), f"the next call fails: {result}")
        return said


async def begin(world, route, server):
    """Begin a long call, and wait until the server runs it."""
    if server.kind.ours:
        return await begin_long(route, server, world.tag(), 60)
    call = route.begin("trigger-long-running-operation", {"duration": 60, "steps": 600}, progress=True)
    await asyncio.wait_for(call.progressed.wait(), END_SECONDS)
    return call


async def expect_failed(call):
    """Wait for the error of a call; gives what it says."""
    try:
        result = await call.result(AT_ONCE_SECONDS * 3)
    except CallError as error:
        return error.message
    expect(result.get("isError"), f"a call that was cut off gives {result}")
    return result["content"][0]["text"]


async def open_sessions(raw, server, count):
    """Open so many sessions, and call in each."""
    sessions = [await raw.initialize() for _ in range(count)]
    await asyncio.gather(*(raw.call(session, f"{server.prefix}echo", {"message": "hello"}) for session in sessions))
    return sessions


async def one_each(world):
    server = child(world, "gosdk-stdio", "each", **LEGACY_ONLY)
    async with running(world, "one-each", server) as gateway:
        raw = Raw(gateway)
        sessions = await open_sessions(raw, server, SESSIONS)
        expect_equal("the number of processes", len(server.pids()), SESSIONS + 1)
        await asyncio.gather(*map(raw.delete, sessions))
        await eventually("the processes end with their sessions", lambda: len(server.pids()) == 1, END_SECONDS)


async def one_for_all(world):
    server = child(world, "gosdk-stdio", "all", **LEGACY_ONLY, instances="shared")
    async with running(world, "one-for-all", server) as gateway:
        before = server.pids()
        raw = Raw(gateway)
        sessions = await open_sessions(raw, server, SESSIONS)
        await asyncio.gather(*map(raw.delete, sessions))
        await open_sessions(raw, server, 1)
        expect_equal("the processes", server.pids(), before)


async def is_full(world):
    server = child(world, "gosdk-stdio", "full", **LEGACY_ONLY, max_instances=3)
    async with running(world, "full", server) as gateway:
        raw, tool, arguments = Raw(gateway), f"{server.prefix}echo", {"message": "hello"}
        # One process is the gateway's own.
        first, _ = await open_sessions(raw, server, 2)
        third = await raw.initialize()
        refused = await raw.attempt(third, tool, arguments)
        expect("error" in refused or refused["result"].get("isError"), f"a process too many answers {refused}")
        expect_equal("the number of processes", len(server.pids()), 3)
        await raw.delete(first)

        async def answers():
            answer = await raw.attempt(third, tool, arguments)
            return "result" in answer and not answer["result"].get("isError")

        await eventually("the session that was refused has a process", answers, END_SECONDS)


async def progresses_apart(world):
    servers = [
        child(world, "gosdk-stdio", "apart", **LEGACY_ONLY, instances="shared"),
        child(world, "every-stdio", "apart", **LEGACY_ONLY),
    ]
    async with running(world, "progress", *servers) as gateway:
        calls = []
        for client in world.clients.values():
            session = await client.connect(gateway.url, gateway.name)
            for server in servers:
                tool, arguments = OUR_PROGRESS if server.kind.ours else every_progress()
                route = Route(session, server.prefix)
                calls += [(client, server, route.begin(tool, arguments, progress=True)) for _ in range(AT_THE_SAME_TIME)]
        await asyncio.gather(*(call.result() for _, _, call in calls))
        for client, server, call in calls:
            steps = [step["progress"] for step in call.progress]
            expect_equal(f"the progress of {client.name} with {server.name}", steps, [1, 2, 3, 4, 5])


def every_progress():
    return "trigger-long-running-operation", {"duration": 0.3, "steps": 5}


async def starts_nothing(world):
    used = child(world, "gosdk-stdio", "used", **LEGACY_ONLY)
    unused = child(world, "every-stdio", "unused", **LEGACY_ONLY)
    async with running(world, "nothing", used, unused) as gateway:
        raw = Raw(gateway)
        [session] = await open_sessions(raw, used, 1)
        before = unused.pids()
        answer = await raw.read(session, "nobody://has/this")
        expect("error" in answer, f"what nobody has is answered with {answer}")
        expect_equal("the new processes of the server that was never used", unused.pids() - before, set())


def wrapped(server, script):
    """The server, run by a shell whose script has its command for arguments."""
    server.kind = replace(server.kind, command=["/bin/sh", "-c", script, "sh", *server.kind.command])
    return server


async def starts_slowly(world):
    server = wrapped(child(world, "gosdk-stdio", "slow"), f'sleep {SLOW_START_SECONDS}; exec "$@"')
    async with running(world, "slow", server) as gateway:

        async def is_modern():
            return "modern" in texts((await gateway.admin.get("/backends")).json())

        await eventually(f"{server.name} is known to be modern", is_modern, SLOW_START_SECONDS)


async def is_cancelled(world):
    """PyPI `mcp` 2.x answers no call that was cancelled."""
    patience = {"timeout": {"first_byte": f"{CANCELLED_SECONDS}s"}}
    server = child(world, "py2-stdio", "cancelled", **LEGACY_ONLY, **patience)
    async with running(world, "cancelled", server) as gateway:
        route = Route(await world.clients["py2-legacy"].connect(gateway.url, gateway.name), server.prefix)
        await route.call("echo", {"message": "there?"})
        tag = world.tag()
        call = await begin_long(route, server, tag, 60)
        await route.session.cancel(call)
        await server.saw("cancelled", tag, END_SECONDS)

        def record():
            lines = gateway.process.log.read_text().splitlines()
            return next((line for line in lines if f'tool="{server.prefix}long"' in line), None)

        line = await eventually("the gateway tells how the call ended", record, CANCELLED_SECONDS * 2)
        expect('outcome="timeout"' not in line, f"it says: {line}")


async def stops(world):
    servers = [child(world, name, "stops") for name in ("py1-stdio", "py1-shared", "every-stdio", "gosdk-stdio")]
    async with running(world, "stops", *servers) as gateway:
        session = await world.clients["py2-legacy"].connect(gateway.url, gateway.name)
        for server in servers:
            await begin(world, Route(session, server.prefix), server)
        expect(all(server.pids() for server in servers), "not every server runs")
        gateway.terminate()
        expect_equal("the exit code", await gateway.process.exited(END_SECONDS), 0)


async def stops_stubborn(world):
    """One ends, but not what has started it, which no signal ends but SIGKILL."""
    server = wrapped(child(world, "gosdk-stdio", "stubborn"), 'trap "" HUP INT TERM; "$@"; while :; do sleep 1; done')
    async with running(world, "stubborn", server) as gateway:
        session = await world.clients["py2-legacy"].connect(gateway.url, gateway.name)
        await begin(world, Route(session, server.prefix), server)
        gateway.process.signal(signal.SIGINT)
        expect_equal("the exit code", await gateway.process.exited(END_SECONDS), 0)


async def dies(world):
    """The closed input is all that they notice, and nobody is left to end one that goes on regardless. The one in Node.js
    does so for a minute when a question that it has asked is not answered: it is in one era alone, so that it is known
    when a process that was only probed, and cannot be answered any more, is gone."""
    settings = {"every-stdio": LEGACY_ONLY}
    names = ("py1-stdio", "py2-stdio", "every-stdio", "gosdk-stdio")
    servers = [child(world, name, "dies", **settings.get(name, {})) for name in names]
    async with running(world, "dies", *servers) as gateway:
        session = await world.clients["py2-legacy"].connect(gateway.url, gateway.name)
        for server in servers:
            await Route(session, server.prefix).call("echo", {"message": "there?"})
        await gateway.process.kill()
        await eventually(
            "all processes have ended", lambda: not any(server.pids() for server in servers), END_SECONDS
        )
