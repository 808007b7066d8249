"""The real MCP clients: programs that obey the line protocol of `clients/lines.py`."""

import asyncio
import itertools
import json
from dataclasses import dataclass, field

from .eras import LEGACY, MODERN
from .failure import Failed
from .process import Process

ANSWER_SECONDS = 30.0
EVENT_SECONDS = 5.0


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
    # What it speaks, first what it likes better.
    eras: tuple = (LEGACY,)
    # Backends that it cannot speak to directly, though they have a version in common.
    strangers: tuple = ()
    # Whether it turns -32002 into -32602.
    renames_not_found: bool = False

    @property
    def auto(self):
        """Whether it discovers first and falls back to `initialize`."""
        return len(self.eras) > 1


def kinds(paths):
    """Every client of the suite: each SDK in each of its modes."""
    python1, python2 = paths.venv("mcp-v1"), paths.venv("mcp-v2")
    rmcp = paths.cache / "rmcp-target/debug/interop-rmcp-client"
    node = paths.cache / "node/client.mjs"
    sdks = {"py2": [python2, paths.here / "clients/mcp_v2.py"], "node": ["node", node], "rmcp": [rmcp]}
    modes = {"legacy": ("legacy", (LEGACY,)), "auto": ("auto", (MODERN, LEGACY)), "modern": (MODERN, (MODERN,))}
    # rmcp gives up where the answer to `server/discover` names legacy versions only.
    strangers = {"rmcp-auto": ("gosdk", "many")}
    # The one SDK that shows the legacy code for a resource that is not there as the modern one.
    renames = {"node": True}
    return [
        Kind("py1", [python1, paths.here / "clients/mcp_v1.py"], legacy="py1"),
        *(
            Kind(
                name := f"{sdk}-{mode}",
                [*command, word],
                f"{sdk}-legacy",
                eras,
                strangers.get(name, ()),
                renames.get(sdk, False),
            )
            for sdk, command in sdks.items()
            for mode, (word, eras) in modes.items()
        ),
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
            self.sessions[message["session"]].take(message)
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

    async def connect(self, url, name, offers=(), answers=None):
        """Open an MCP session, call it `name`, and list its tools as any real client does: the Python SDKs else list
        them after each call, to check its result against the tool's schema. `offers` are the client's capabilities, and
        `answers` what it answers to the server."""
        session = Session(self, name, dict(answers or {}))
        self.sessions[name] = session
        opened = await self.order(
            "connect", session=name, url=url, offers=offers, answers=session.answers
        ).result()
        session.protocol = opened["protocol"]
        await session.list_tools()
        return session


class Session:
    """One MCP session of a client."""

    def __init__(self, client, name, answers):
        self.client = client
        self.name = name
        self.answers = answers
        self.protocol = None
        # One item for every `notifications/tools/list_changed`.
        self.changes = asyncio.Queue()
        # How long it waits for an event.
        self.patience = EVENT_SECONDS
        # Every event there ever was.
        self.events = []
        self.came = asyncio.Event()

    def take(self, event):
        """Note an event of the session."""
        self.events.append(event)
        self.came.set()
        if event["event"] == "tools_changed":
            self.changes.put_nowait(event["event"])

    def heard(self, event, since=0, **details):
        """The events of one kind, and with these details, after the first `since` events."""
        wanted = {"event": event, **details}
        return [found for found in self.events[since:] if wanted.items() <= found.items()]

    async def hear(self, event, since=0, patience=None, **details):
        """Wait for such an event, and give the first."""
        patience = patience or self.patience
        try:
            async with asyncio.timeout(patience):
                while not (found := self.heard(event, since, **details)):
                    self.came.clear()
                    await self.came.wait()
        except TimeoutError:
            raise Failed(f"no event {event} {details or ''} within {patience:g} s; heard: {self.events[since:]}") from None
        return found[0]

    async def ask(self, do, **details):
        """Give an order of the line protocol, and wait for its answer."""
        return await self.client.order(do, session=self.name, **details).result()

    async def list_tools(self):
        """Every tool, all pages."""
        return (await self.ask("list"))["tools"]

    async def prompts(self):
        """Every prompt, all pages."""
        return (await self.ask("prompts"))["prompts"]

    async def resources(self):
        """Every resource, all pages."""
        return (await self.ask("resources"))["resources"]

    async def templates(self):
        """Every resource template, all pages."""
        return (await self.ask("templates"))["templates"]

    async def read(self, uri):
        """The contents of a resource."""
        return (await self.ask("read", uri=uri))["contents"]

    async def complete(self, ref, name, value):
        """The values that an argument completes to."""
        answer = await self.ask("complete", ref=ref, argument={"name": name, "value": value})
        return answer["completion"]["values"]

    async def script(self, **answers):
        """Change what to answer when the server asks."""
        self.answers |= answers
        await self.ask("script", answers=self.answers)

    def begin(self, tool, arguments, progress=False):
        """Start a call without waiting for its answer."""
        return self.client.order("call", session=self.name, name=tool, arguments=arguments, progress=progress)

    async def cancel(self, call):
        """Cancel a call that was begun."""
        await self.client.order("cancel", call=call.id).result()

    async def close(self):
        """End the session."""
        await self.ask("close")
