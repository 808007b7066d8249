"""A second gateway with the same session key."""

from functools import partial

from ..raw import Raw
from ..suite import Case, expect_equal


def cases(world):
    yield Case("a second gateway with the same key serves a session that the first one opened", partial(shares, world))


async def shares(world):
    second = world.new_gateway("gateway-second")
    await second.start(await world.public_names())
    try:
        session = await Raw(world.gateway).initialize()
        for backend in world.ours:
            for gateway in (second, world.gateway):
                result = await Raw(gateway).call(session, backend.prefix + "echo", {"message": gateway.name})
                said = result["content"][0]["text"]
                expect_equal(f"what {backend.name} says through {gateway.name}", said, gateway.name)
    finally:
        await second.process.stop()
