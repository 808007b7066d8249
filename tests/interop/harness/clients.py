"""The real MCP clients: programs that obey the line protocol of `clients/lines.py`."""

import asyncio
import itertools
import json
from dataclasses import dataclass, field

from .failure import Failed
from .process import Process

ANSWER_SECONDS = 30.0


class CallError(Failed):
    """The client reports an error instead of a result: `code` is a JSON-RPC code where there was one."""

    def __init__(self, client, code, message):
        super().__init__(f"{client} reports an error with code {code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Kind:
    """One client SDK in one mode."""

    name: str
    command: list
    # The same SDK in mode legacy, if it is not that itself.
    legacy: str
    # Backends that it cannot speak to directly, though they have a version in common.
    strangers: tuple = ()
    # Whether the same holds for a gateway that serves legacy versions only.
    needs_modern: bool = False

    @property
    def auto(self):
        """Whether it discovers first and falls back to `initialize`."""
        return self.legacy != self.name


def kinds(paths):
    """Every client of the suite."""
    python1, python2 = paths.venv("mcp-v1"), paths.venv("mcp-v2")
    rmcp = paths.cache / "rmcp-target/debug/interop-rmcp-client"
    node = paths.cache / "node/client.mjs"
    return [
        Kind("py1", [python1, paths.here / "clients/mcp_v1.py"], legacy="py1"),
        Kind("py2-legacy", [python2, paths.here / "clients/mcp_v2.py", "legacy"], legacy="py2-legacy"),
        Kind("py2-auto", [python2, paths.here / "clients/mcp_v2.py", "auto"], legacy="py2-legacy"),
        Kind("node-legacy", ["node", node, "legacy"], legacy="node-legacy"),
        Kind("node-auto", ["node", node, "auto"], legacy="node-legacy"),
        Kind("rmcp-legacy", [rmcp, "legacy"], legacy="rmcp-legacy"),
        # rmcp gives up where only legacy versions are named, by an answer to `server/discover` or by an error -32022.
        Kind("rmcp-auto", [rmcp, "auto"], legacy="rmcp-legacy", strangers=("gosdk", "many"), needs_modern=True),
    ]


@dataclass
class Order:
    """Something asked of a client: its answer to come, and the progress so far."""

    id: int
    answer: asyncio.Future
    progress: list = field(default_factory=list)
    progressed: asyncio.Event = field(default_factory=asyncio.Event)

    async def result(self, within=ANSWER_SECONDS):
        """The answer; `CallError` if it is an error."""
        try:
            return await asyncio.wait_for(asyncio.shield(self.answer), within)
        except TimeoutError:
            raise Failed(f"no answer from the client within {within:g} s") from None


class Client:
    """One running client program."""

    def __init__(self, kind, paths, suffix=""):
        self.kind = kind
        self.name = kind.name + suffix
        self.process = Process(
            f"client-{self.name}",
            kind.command,
            paths.logs,
            env={
                "SSL_CERT_FILE": str(paths.ca),
                "NODE_EXTRA_CA_CERTS": str(paths.ca),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            piped=True,
        )
        self.ids = itertools.count(1)
        self.orders = {}
        self.sessions = {}
        self.reader = None

    async def start(self):
        """Start the program and listen to it."""
        await self.process.start()
        self.reader = asyncio.create_task(self.read())

    async def read(self):
        """Hand each line to whom it concerns, until the program ends."""
        while line := await self.process.child.stdout.readline():
            self.take(json.loads(line))
        for order in self.orders.values():
            order.answer.set_exception(Failed(f"{self.name} has ended"))

    def take(self, message):
        if "event" in message:
            self.sessions[message["session"]].changes.put_nowait(message["event"])
        elif "progress" in message:
            order = self.orders[message["id"]]
            order.progress.append(message["progress"])
            order.progressed.set()
        elif "error" in message:
            error = message["error"]
            self.orders.pop(message["id"]).answer.set_exception(CallError(self.name, error["code"], error["message"]))
        else:
            self.orders.pop(message["id"]).answer.set_result(message["ok"])

    def order(self, do, **details):
        """Ask the program for something."""
        order = Order(next(self.ids), asyncio.get_running_loop().create_future())
        # Whoever is not waited for must not be reported as forgotten.
        order.answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
        self.orders[order.id] = order
        line = json.dumps({"id": order.id, "do": do, **details}) + "\n"
        self.process.child.stdin.write(line.encode())
        return order

    async def connect(self, url, name):
        """Open an MCP session, call it `name`, and list its tools as any real client does: the Python SDKs else list
        them after each call, to check its result against the tool's schema."""
        session = Session(self, name)
        self.sessions[name] = session
        opened = await self.order("connect", session=name, url=url).result()
        session.protocol = opened["protocol"]
        await session.list_tools()
        return session


class Session:
    """One MCP session of a client."""

    def __init__(self, client, name):
        self.client = client
        self.name = name
        self.protocol = None
        # One item for every `notifications/tools/list_changed`.
        self.changes = asyncio.Queue()

    async def list_tools(self):
        """Every tool, all pages."""
        return (await self.client.order("list", session=self.name).result())["tools"]

    def begin(self, tool, arguments, progress=False):
        """Start a call without waiting for its answer."""
        return self.client.order("call", session=self.name, name=tool, arguments=arguments, progress=progress)

    async def cancel(self, call):
        """Cancel a call that was begun."""
        await self.client.order("cancel", call=call.id).result()

    async def close(self):
        """End the session."""
        await self.client.order("close", session=self.name).result()
