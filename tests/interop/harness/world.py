"""Everything that runs during a test run, and how a client reaches a backend in it."""

import asyncio
import collections
import itertools

from . import backends, certificates, clients
from .backends import Backend
from .clients import Client
from .eras import LEGACY
from .gateway import Gateway, session_keys


# All that a client can declare itself able to answer.
EVERYTHING = ("elicitation", "sampling", "roots")


class World:
    """All servers and clients, and the gateway between them unless the run is direct.

    With a gateway every backend has a twin that only the harness talks to: what a twin answers is what the gateway's
    backend must seem to answer, and nothing that happens to a twin's sessions can disturb the gateway's.
    """

    def __init__(self, paths, binary=None):
        self.paths = paths
        self.binary = binary
        certificates.make(paths.tls)
        # The other clients are the matrix's business.
        kinds = [kind for kind in clients.kinds(paths) if LEGACY in kind.eras]
        self.clients = {kind.name: Client(kind, paths) for kind in kinds}
        self.backends = {kind.name: Backend(kind, paths) for kind in backends.kinds(paths)}
        if self.is_direct:
            self.twins = self.backends
        else:
            self.twins = {kind.name: Backend(kind, paths, suffix="-twin") for kind in backends.kinds(paths)}
            self.keys = session_keys(paths.logs)
            self.gateway = self.new_gateway("gateway")
        self.calls_through = collections.Counter()
        self.sessions = {}
        self.tags = itertools.count(1)

    @property
    def is_direct(self):
        return self.binary is None

    @property
    def ours(self):
        """The backends that have this suite's own tools."""
        return [backend for backend in self.backends.values() if backend.kind.ours]

    def reachable(self, client):
        """The backends that `client` can speak to in this run; through the gateway that is every one."""
        strangers = client.kind.strangers if self.is_direct else ()
        return [backend for backend in self.backends.values() if backend.name not in strangers]

    def reachable_ours(self, client):
        """Those of them that have this suite's own tools."""
        return [backend for backend in self.reachable(client) if backend.kind.ours]

    async def start(self):
        """Start everything; the gateway last, when its backends are there."""
        servers = dict.fromkeys([*self.backends.values(), *self.twins.values()])
        await asyncio.gather(*(server.start() for server in servers))
        await asyncio.gather(*(client.start() for client in self.clients.values()))
        if not self.is_direct:
            await self.gateway.start(await self.public_names())

    def new_gateway(self, name, **sections):
        """A gateway process in front of all backends. All of them share the session key."""
        return Gateway(self.binary, self.paths, list(self.backends.values()), name, **self.keys, **sections)

    async def public_names(self):
        """Every tool of every backend under its public name, in the order of the configuration."""
        return [tool["name"] for tool in await self.public_tools(self.clients["py2-legacy"])]

    async def public_tools(self, client):
        """Every tool as the gateway must list it: only its name is another. Tools that can be called in no other way
        than as a task are left out, because the gateway serves no tasks."""
        tools = []
        for backend in self.backends.values():
            # Not every SDK shows `execution`, and not every one takes elicitation by URL, which one tool is shown for.
            full = await (await self.reference(self.clients["py2-legacy"], backend)).list_tools()
            own = {tool["name"]: tool for tool in await (await self.reference(client, backend)).list_tools()}
            for tool in full:
                if tool.get("execution", {}).get("taskSupport") != "required":
                    tools.append({**own.get(tool["name"], {}), "name": backend.prefix + tool["name"]})
        return tools

    async def reference(self, client, backend):
        """A session that shows what `backend` says when nothing is between: the same SDK with the twin, in the era
        that the gateway speaks, of a client that can be asked everything, which some servers show more tools to."""
        client, twin = self.clients[client.kind.legacy], self.twins[backend.name]
        return await self.session(client, twin.url, f"{twin.name}-reference", EVERYTHING)

    async def direct(self, client, backend):
        """The session of `client` straight with `backend`."""
        return await self.session(client, backend.url, backend.name)

    async def through(self, client):
        """The session of `client` with the gateway."""
        return await self.session(client, self.gateway.url, "gateway")

    async def session(self, client, url, name, offers=()):
        """A session that all tests share; opened when first wanted."""
        key = (client.name, name)
        if key not in self.sessions:
            self.sessions[key] = await client.connect(url, name, offers)
        return self.sessions[key]

    async def connected(self):
        """All clients, connected."""
        if not self.is_direct:
            await asyncio.gather(*(self.through(client) for client in self.clients.values()))
        return list(self.clients.values())

    async def route(self, client, backend):
        """The way from `client` to `backend` that this run is about."""
        if self.is_direct:
            return Route(await self.direct(client, backend), "")
        return Route(await self.through(client), backend.prefix, self.calls_through)

    def tag(self):
        """A word that no other call carries."""
        return f"tag-{next(self.tags)}"


class Route:
    """A session, and what to put before a tool's name in it. Counts the calls in `counter`."""

    def __init__(self, session, prefix, counter=None):
        self.session = session
        self.prefix = prefix
        self.counter = counter if counter is not None else collections.Counter()

    def begin(self, tool, arguments, progress=False):
        """Start a call without waiting for its answer."""
        self.counter[self.prefix + tool] += 1
        return self.session.begin(self.prefix + tool, arguments, progress)

    async def call(self, tool, arguments):
        """Call, and wait for the result."""
        return await self.begin(tool, arguments).result()
