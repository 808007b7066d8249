"""Every client with every server, feature by feature. A case is named "matrix: CLIENT x BACKEND: ROW".

All of them share one set of servers, one program for each client and, unless the run is direct, one gateway. Each pair
has a session of its own, and its rows run one after another in a lane; lanes run concurrently. Directly, a pair without
an era in common has one row, in which the client is refused.
"""

import asyncio
import contextlib
from functools import partial

from ... import backends, clients
from ...backends import Backend
from ...clients import EVENT_SECONDS, CallError, Client
from ...eras import LEGACY
from ...failure import Failed
from ...gateway import Gateway, session_keys
from ...suite import Case
from . import everything, fixture
from .growth import Growth
from .impossible import instead
from .pair import Pair

LANES_AT_ONCE = 12
ROW_SECONDS = 30.0
# One backend grows after another.
LIST_CHANGED_SECONDS = 120.0
# How long to wait for an event that should not come.
IMPOSSIBLE_SECONDS = 1.0
# The rows in which a server tells or asks a client something.
TOLD = {"progress", "cancel", "subscribe", "logging", "list_changed", "elicitation", "sampling", "roots"}


class Matrix:
    """What the matrix needs, started once."""

    def __init__(self, world):
        self.paths = world.paths
        self.binary = world.binary
        self.clients = [Client(kind, self.paths, suffix="-matrix") for kind in clients.kinds(self.paths)]
        self.backends = [Backend(kind, self.paths, suffix="-matrix") for kind in backends.matrix_kinds(self.paths)]
        self.gateway = None
        self.pairs = [Pair(self, client, backend) for client in self.clients for backend in self.backends]
        # Whose changes a session hears of: directly those of its backend, through the gateway those of all.
        lock = asyncio.Lock()
        self.changing = {backend.name: asyncio.Lock() if self.is_direct else lock for backend in self.backends}
        self.growths = {backend.name: self.growth(backend) for backend in self.backends}

    @property
    def is_direct(self):
        return self.binary is None

    async def start(self):
        """Start the servers and the clients, then the gateway."""
        await asyncio.gather(*(server.start() for server in self.backends), *(one.start() for one in self.clients))
        if self.is_direct:
            return
        keys = session_keys(self.paths.logs, "matrix-session.key")
        self.gateway = Gateway(self.binary, self.paths, self.backends, "gateway-matrix", **keys)
        # What the catalog lacks is for the rows to tell, each of its own backend.
        with contextlib.suppress(Failed):
            await self.gateway.start([f"{backend.prefix}echo" for backend in self.backends])

    def growth(self, backend):
        pairs = [pair for pair in self.pairs if pair.backend is backend and "list_changed" in rows(pair)]
        return Growth(pairs, self.changing[backend.name])

    def lanes(self):
        """The cases of each pair."""
        return [[case(pair, row, check) for row, check in rows(pair).items()] for pair in self.pairs]


def rows(pair):
    """The rows of a pair, and how each is checked."""
    if pair.era is None:
        return {"is refused": is_refused}
    every = fixture.ROWS if pair.backend.kind.ours else everything.ROWS
    # Without sessions mcp-go tells any legacy client what is meant for another.
    if pair.is_direct and pair.backend.kind.mixes_up and pair.era == LEGACY:
        return {row: check for row, check in every.items() if row not in TOLD}
    return every


def case(pair, row, check):
    name = f"matrix: {pair.client.kind.name} x {pair.backend.name}: {row}"
    return Case(name, partial(judge, pair, row, check), LIST_CHANGED_SECONDS if row == "list_changed" else ROW_SECONDS)


async def judge(pair, row, check):
    """Check a row; one that cannot work must fail as the table says."""
    expected = instead(pair, row)
    if expected is None:
        if pair.era is not None:
            await pair.opened()
        return await check(pair)
    try:
        await pair.opened()
        pair.session.patience = IMPOSSIBLE_SECONDS
        await check(pair)
    except Failed as failed:
        return expected.judge(failed)
    finally:
        if pair.session is not None:
            pair.session.patience = EVENT_SECONDS
    if expected.by_luck:
        return f"by luck: {expected.why}"
    raise Failed(f"it works, though the table says it cannot: {expected.why}")


async def is_refused(pair):
    """A client and a server without an era in common."""
    try:
        await pair.opened()
    except CallError as error:
        return f"error {error.code}: {error.message[:200]}"
    raise Failed(f"they connect, with {pair.session.protocol}")
