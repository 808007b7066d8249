"""A client with a server: the session between them, and what the rows ask of it."""

import asyncio
import itertools

from ...eras import LEGACY, MODERN
from ...suite import expect_equal
from ...world import Route

ROOTS = ["file:///home/ada", "file:///srv/data"]
OFFERS = ("elicitation", "sampling", "roots")

_tags = itertools.count(1)


class Pair(Route):
    """A route to one backend; its session is opened when first wanted."""

    def __init__(self, matrix, client, backend):
        super().__init__(None, "" if matrix.is_direct else backend.prefix)
        self.matrix = matrix
        self.client = client
        self.backend = backend
        self.base = f"fixture-{backend.name}://"
        self.opening = None

    @property
    def is_direct(self):
        return self.matrix.is_direct

    @property
    def era(self):
        """The era that the client likes best of those that are served, or None where it knows none of them."""
        served = self.backend.kind.eras if self.is_direct else (LEGACY, MODERN)
        return next((era for era in self.client.kind.eras if era in served), None)

    @property
    def process(self):
        """What is the same for pairs that share one stream, where nothing tells whose it is that the server logs or asks.
        Modern clients share one with each server."""
        over = self.backend.kind.over
        if over == "shared":
            return (self.backend, self.era if self.backend.kind.modern else None)
        return (self.backend, self.era) if over in ("stdio", "sse") and self.era == MODERN else self

    @property
    def is_alone(self):
        """Whether its gateway has no other backend, which then is asked for whatever may be a resource."""
        return self.backend.kind.over != "http"

    @property
    def changing(self):
        """Held while the lists of the backend change."""
        return self.matrix.changing[self.backend.name]

    async def opened(self):
        """The pair, connected."""
        if self.opening is None:
            self.opening = asyncio.create_task(self.open())
        await asyncio.shield(self.opening)
        return self

    async def open(self):
        self.session = await self.client.connect(self.matrix.url(self.backend), self.backend.name, OFFERS, {"roots": ROOTS})
        expect_equal("the protocol version", self.session.protocol, self.era)

    async def everywhere(self, tool, arguments):
        """Call a tool that concerns all sessions; of replicas, on each."""
        if self.backend.kind.over != "replicas":
            await self.call(tool, arguments)
            return
        client = self.matrix.teller
        for replica in self.backend.each:
            session = await client.connect(replica.url, f"{replica.process.name}-{next(_tags)}")
            await session.begin(tool, arguments).result()
            await session.close()

    def tag(self):
        """A word that nothing else carries; what has it for a name has grown."""
        return f"grown-{next(_tags)}"

    async def said(self, tool, **arguments):
        """Call a tool, and give the text of its result."""
        return text_of(await self.call(tool, arguments))


def text_of(result):
    """The text of a result, all of it."""
    return "\n".join(part["text"] for part in result["content"] if part["type"] == "text")
