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
        url = self.backend.url if self.is_direct else self.matrix.gateway.url
        self.session = await self.client.connect(url, self.backend.name, OFFERS, {"roots": ROOTS})
        expect_equal("the protocol version", self.session.protocol, self.era)

    def tag(self):
        """A word that nothing else carries; what has it for a name has grown."""
        return f"grown-{next(_tags)}"

    async def said(self, tool, **arguments):
        """Call a tool, and give the text of its result."""
        return text_of(await self.call(tool, arguments))


def text_of(result):
    """The text of a result, all of it."""
    return "\n".join(part["text"] for part in result["content"] if part["type"] == "text")
