"""Every client with every server, feature by feature. A case is named "matrix: CLIENT x BACKEND: ROW".

All of them share one set of servers, one program for each client and, unless the run is direct, one gateway; but each
server that is not at one URL over HTTP has a gateway of its own, because a gateway may ask all of its servers for what
none lists, and each would start a process for it. Each pair has a session of its own, and its rows run one after another
in a lane; lanes run concurrently. Directly, a pair without
an era in common has one row, in which the client is refused.
"""

import asyncio
import contextlib
import re
from functools import partial

from ... import backends, clients
from ...clients import EVENT_SECONDS, CallError, Client
from ...eras import LEGACY
from ...failure import Failed
from ...gateway import Gateway, session_keys
from ...suite import Case
from ...transports import backend as backend_of
from . import everything, fixture
from .growth import Growth
from .impossible import IMPOSSIBLE_SECONDS, instead
from .pair import Pair

LANES_AT_ONCE = 12
ROW_SECONDS = 30.0
# Many processes start at once here, and neither health nor haste is what this is about.
PATIENT = {"health": {"interval": "20s", "timeout": "20s", "rise": 1, "fall": 3, "max_backoff": "20s"}}
# One backend grows after another.
LIST_CHANGED_SECONDS = 120.0
# The rows in which a server tells or asks a client something.
TOLD = {"progress", "cancel", "subscribe", "logging", "list_changed", "elicitation", "sampling", "roots"}

# The rows in which a notification of a call may be swallowed, how one that is missing is told, and how often a row is tried.
SWALLOWED = {"progress", "logging"}
MISSING = "no event log |the progress"
TRIES = 3


class Matrix:
    """What the matrix needs, started once."""

    def __init__(self, world):
        self.paths = world.paths
        self.binary = world.binary
        self.clients = [Client(kind, self.paths, suffix="-matrix") for kind in clients.kinds(self.paths)]
        kinds = backends.matrix_kinds(self.paths)
        if not self.is_direct:
            kinds += backends.other_kinds(self.paths)
        self.backends = [backend_of(kind, self.paths, suffix="-matrix") for kind in kinds]
        self.gateways = {}
        self.pairs = [
            Pair(self, client, backend)
            for client in self.clients
            for backend in self.backends
            if not backend.kind.clients or client.kind.name in backend.kind.clients
        ]
        # Talks to replicas one by one.
        self.teller = next(client for client in self.clients if client.kind.name == "py2-legacy")
        # Whose changes a session hears of: directly those of its backend, through the gateway those of all.
        lock = asyncio.Lock()
        is_alone = {backend.name: self.is_direct or backend.kind.over != "http" for backend in self.backends}
        self.changing = {name: asyncio.Lock() if alone else lock for name, alone in is_alone.items()}
        self.growths = {backend.name: self.growth(backend) for backend in self.backends}

    @property
    def is_direct(self):
        return self.binary is None

    async def start(self):
        """Start the servers and the clients, then the gateways."""
        await asyncio.gather(*(server.start() for server in self.backends), *(one.start() for one in self.clients))
        if self.is_direct:
            return
        keys = session_keys(self.paths.logs, "matrix-session.key")
        together = [backend for backend in self.backends if backend.kind.over == "http"]
        shared = Gateway(self.binary, self.paths, together, "gateway-matrix", **keys)
        self.gateways = {backend.name: shared for backend in together}
        for backend in self.backends:
            if backend.kind.over != "http":
                gateway = Gateway(self.binary, self.paths, [backend], f"gateway-{backend.name}", **keys, **PATIENT)
                self.gateways[backend.name] = gateway
        await asyncio.gather(*map(self.start_gateway, dict.fromkeys(self.gateways.values())))

    async def start_gateway(self, gateway):
        # What the catalog lacks is for the rows to tell, each of its own backend.
        with contextlib.suppress(Failed):
            await gateway.start([f"{backend.prefix}echo" for backend in gateway.backends])

    def url(self, backend):
        """Where a client reaches a backend."""
        return backend.url if self.is_direct else self.gateways[backend.name].url

    def growth(self, backend):
        pairs = [pair for pair in self.pairs if pair.backend is backend and "list_changed" in rows(pair)]
        return Growth(pairs, self.changing[backend.name])

    def lanes(self):
        """The cases of each pair; pairs that share a process, where it shows, share a lane."""
        lanes = {}
        for pair in self.pairs:
            lanes.setdefault(pair.process, []).extend(case(pair, row, check) for row, check in rows(pair).items())
        return list(lanes.values())


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
        return await checked(pair, row, check)
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


async def checked(pair, row, check):
    """Check a row, anew where all that is missing is what its server may have swallowed."""
    swallowed = []
    while True:
        try:
            note = await check(pair)
        except Failed as failed:
            may_be = pair.backend.kind.swallows and row in SWALLOWED and re.match(MISSING, str(failed))
            if not may_be or len(swallowed) == TRIES - 1:
                raise
            swallowed.append(str(failed).split(";")[0])
        else:
            return f"not the first time, mcp-go swallows notifications: {'; '.join(swallowed)}" if swallowed else note


async def is_refused(pair):
    """A client and a server without an era in common."""
    try:
        await pair.opened()
    except CallError as error:
        return f"error {error.code}: {error.message[:200]}"
    raise Failed(f"they connect, with {pair.session.protocol}")
