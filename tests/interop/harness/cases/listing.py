"""Connecting and `tools/list`."""

from functools import partial

from ..clients import CallError
from ..eras import LEGACY, MODERN
from ..failure import Failed
from ..suite import Case, expect_equal


def cases(world):
    for client in world.clients.values():
        if world.is_direct:
            for backend in world.reachable(client):
                yield Case(f"{client.name} lists {backend.name}", partial(lists_directly, world, client, backend))
            for name in client.kind.strangers:
                yield Case(
                    f"{client.name} cannot connect to {name}",
                    partial(cannot_connect, world, client, world.backends[name]),
                )
        else:
            yield Case(f"{client.name} connects in the era that it likes best", partial(connects, world, client))
            yield Case(
                f"{client.name} lists the tools of every backend, each once, in the order of the configuration",
                partial(lists_all, world, client),
            )
            yield Case(f"{client.name} gets the same list twice", partial(lists_alike, world, client))
            yield Case(f"{client.name} gets every page of a long list", partial(lists_every_page, world, client))


async def lists_directly(world, client, backend):
    session = await world.direct(client, backend)
    modern = client.kind.auto and backend.kind.modern
    expect_equal("the protocol version", session.protocol, MODERN if modern else LEGACY)
    tools = await session.list_tools()
    expect_equal("the second list", await session.list_tools(), tools)
    names = [tool["name"] for tool in tools]
    expect_equal("names that come twice", len(names) - len(set(names)), 0)
    if backend.kind.count is not None:
        expect_equal("the number of tools", len(names), backend.kind.count)
    return f"{len(names)} tools, {session.protocol}"


async def cannot_connect(world, client, backend):
    """A known gap between two peers; when it closes, this test says so."""
    try:
        session = await world.direct(client, backend)
    except CallError as error:
        return error.message
    raise Failed(f"it does now, with {session.protocol}")


async def connects(world, client):
    session = await world.through(client)
    expect_equal("the protocol version", session.protocol, client.kind.eras[0])


async def lists_all(world, client):
    """Nothing of a definition but its name may change on the way."""
    session = await world.through(client)
    expected, actual = await world.public_tools(client), await session.list_tools()
    if session.protocol == MODERN:
        expected = [without_execution(tool) for tool in expected]
        actual = [without_execution(tool) for tool in actual]
    expect_same_names(actual, expected)
    for mine, theirs in zip(actual, expected, strict=True):
        # Of a tool that is not shown to this SDK directly, nothing but the name is known.
        if theirs.keys() != {"name"}:
            expect_equal(f"the definition of {theirs['name']}", mine, theirs)
    return f"{len(actual)} tools"


def without_execution(tool):
    """A tool without what the modern era does not know."""
    return {key: value for key, value in tool.items() if key != "execution"}


def expect_same_names(actual, expected):
    names, wanted = [tool["name"] for tool in actual], [tool["name"] for tool in expected]
    if names == wanted:
        return
    missing = [name for name in wanted if name not in set(names)]
    surplus = [name for name in names if name not in set(wanted)]
    if missing or surplus or len(names) != len(set(names)):
        twice = len(names) - len(set(names))
        raise Failed(f"{twice} names come again; missing {missing[:20]}; too many {surplus[:20]}")
    raise Failed(f"the names are right, but not their order; first {names[:20]}")


async def lists_alike(world, client):
    session = await world.through(client)
    expect_equal("the second list", await session.list_tools(), await session.list_tools())


async def lists_every_page(world, client):
    names = {tool["name"] for tool in await (await world.through(client)).list_tools()}
    for backend in world.backends.values():
        if backend.kind.count is not None:
            found = sum(name.startswith(backend.prefix) for name in names)
            expect_equal(f"the number of tools of {backend.name}", found, backend.kind.count)
