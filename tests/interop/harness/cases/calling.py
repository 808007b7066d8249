"""`tools/call`: results, progress, and the two kinds of failure."""

from functools import partial

from ..clients import CallError
from ..failure import Failed
from ..suite import Case, expect, expect_equal

INVALID_PARAMS = -32602
UNKNOWN = "no_such_tool"


def cases(world):
    for client in world.clients.values():
        for backend in world.reachable(client):
            for tool, arguments in backend.kind.samples:
                yield Case(
                    f"{client.name} calls {tool} of {backend.name}" + ("" if world.is_direct else " as if directly"),
                    partial(calls, world, client, backend, tool, arguments),
                )
            if backend.kind.progress and not (world.is_direct and backend.kind.mixes_up):
                yield Case(
                    f"{client.name} gets the progress of a call to {backend.name} in order",
                    partial(progresses, world, client, backend),
                )
        for backend in world.reachable_ours(client):
            yield Case(
                f"{client.name} gets a tool error of {backend.name} as a result", partial(fails, world, client, backend)
            )
        if world.is_direct:
            for backend in world.reachable(client):
                yield Case(
                    f"{client.name} is refused an unknown tool of {backend.name}",
                    partial(is_refused, world, client, backend),
                )
        else:
            yield Case(
                f"{client.name} gets -32602 'Unknown tool' for a tool nobody has",
                partial(is_told_unknown, world, client, UNKNOWN),
            )
            yield Case(
                f"{client.name} gets -32602 'Unknown tool' for a tool its backend does not have",
                partial(is_told_unknown, world, client, "py1__" + UNKNOWN),
            )


def essence(result):
    """What a tool said, without what an era or a transport adds to it."""
    return {key: result.get(key) for key in ("content", "structuredContent")} | {
        "isError": bool(result.get("isError", False))
    }


async def calls(world, client, backend, tool, arguments):
    directly = await (await world.reference(client, backend)).begin(tool, arguments).result()
    answered = await (await world.route(client, backend)).call(tool, arguments)
    expect(directly["content"], "the result has no content")
    expect_equal("the result", essence(answered), essence(directly))


async def progresses(world, client, backend):
    route = await world.route(client, backend)
    tool, arguments = backend.kind.progress
    call = route.begin(tool, arguments, progress=True)
    await call.result()
    expect_equal("the progress", [step["progress"] for step in call.progress], list(range(1, backend.kind.steps + 1)))
    expect_equal("the totals", {step["total"] for step in call.progress}, {backend.kind.steps})


async def fails(world, client, backend):
    result = await (await world.route(client, backend)).call("fail", {})
    expect_equal("isError", result.get("isError"), True)
    expect("deliberate failure" in result["content"][0]["text"], f"the tool's own words are lost: {result}")


async def is_refused(world, client, backend):
    """Servers differ in how: an error, or a result with `isError`."""
    route = await world.route(client, backend)
    try:
        result = await route.call(UNKNOWN, {})
    except CallError as error:
        return f"error {error.code}: {error.message}"
    expect_equal("isError", result.get("isError"), True)
    return "isError: " + result["content"][0]["text"]


async def is_told_unknown(world, client, name):
    session = await world.through(client)
    try:
        result = await session.begin(name, {}).result()
    except CallError as error:
        expect_equal("the code", error.code, INVALID_PARAMS)
        expect("Unknown tool" in error.message, f"the message says {error.message!r}")
    else:
        raise Failed(f"a result came instead of an error: {result}")
