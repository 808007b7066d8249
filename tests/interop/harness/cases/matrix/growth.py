"""Lists that change: what a server offers grows and shrinks again, while all its clients look on."""

import asyncio

from ...eras import MODERN
from .impossible import IMPOSSIBLE_SECONDS, instead


class Growth:
    """The growth of one server, which happens once. `pairs` are those that it is a row of; while `alone` is held
    nothing else grows that they would hear of."""

    def __init__(self, pairs, alone):
        self.pairs = pairs
        self.alone = alone
        self.happening = None

    async def seen_by(self, pair):
        """Wait until it is over, and fail unless the client of `pair` has seen all of it."""
        if self.happening is None:
            self.happening = asyncio.create_task(self.happen())
        problem = (await asyncio.shield(self.happening))[pair]
        if problem is not None:
            raise problem

    async def happen(self):
        """Gives for each pair what was wrong with it, or None."""
        problems = dict(zip(self.pairs, await each(map(watch, self.pairs)), strict=True))
        onlookers = [pair for pair, problem in problems.items() if problem is None]
        if onlookers:
            async with self.alone:
                await self.change(onlookers, problems)
        return problems

    async def change(self, onlookers, problems):
        grower, name = next(filter(is_listed, onlookers), onlookers[0]), onlookers[0].tag()
        for tool, there in (("grow", True), ("shrink", False)):
            since = {pair: len(pair.session.events) for pair in onlookers}
            await grower.everywhere(tool, {"name": name})
            found = await each(becomes(pair, since[pair], name, there) for pair in onlookers)
            for pair, problem in zip(onlookers, found, strict=True):
                problems[pair] = problems[pair] or problem


def is_listed(pair):
    """Whether the gateway lists what grows there: of processes that it runs, it lists the modern era's, if there is one."""
    return pair.backend.kind.over == "http" or pair.era == MODERN


async def each(doing):
    """Do all of it, and give what was raised by each, or None."""
    return await asyncio.gather(*doing, return_exceptions=True)


async def watch(pair):
    await pair.opened()
    await pair.session.ask("watch")


async def becomes(pair, since, name, there):
    """Do as a client does, and look again whenever a list is said to have changed, until all three are right."""
    looks = {
        "tools_changed": lambda: has(pair.session.list_tools(), "name", pair.prefix + name),
        "prompts_changed": lambda: has(pair.session.prompts(), "name", pair.prefix + name),
        "resources_changed": lambda: has(pair.session.resources(), "uri", pair.base + name),
    }
    patience = IMPOSSIBLE_SECONDS if instead(pair, "list_changed") else None
    for change, look in looks.items():
        looked = since
        while True:
            await pair.session.hear(change, looked, patience)
            looked = len(pair.session.events)
            if await look() == there:
                break


async def has(listing, key, value):
    return any(item[key] == value for item in await listing)
