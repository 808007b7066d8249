"""The line protocol between the harness and a client program, for the Python clients.

One JSON object a line. The harness writes to stdin:

    {"id": 1, "do": "connect", "session": "a", "url": "http://127.0.0.1:3001/mcp", "offers": ["roots"], "answers": {"roots": []}}
    {"id": 2, "do": "list", "session": "a"}
    {"id": 3, "do": "call", "session": "a", "name": "echo", "arguments": {}, "progress": true}
    {"id": 4, "do": "cancel", "call": 3}
    {"id": 5, "do": "prompts", "session": "a"}
    {"id": 6, "do": "get_prompt", "session": "a", "name": "greet", "arguments": {"name": "Ada"}}
    {"id": 7, "do": "resources", "session": "a"}
    {"id": 8, "do": "templates", "session": "a"}
    {"id": 9, "do": "read", "session": "a", "uri": "fixture://text"}
    {"id": 10, "do": "subscribe", "session": "a", "uri": "fixture://text"}
    {"id": 11, "do": "watch", "session": "a"}
    {"id": 12, "do": "complete", "session": "a", "ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "name", "value": "A"}}
    {"id": 13, "do": "set_level", "session": "a", "level": "warning"}
    {"id": 14, "do": "script", "session": "a", "answers": {"elicitation": {"action": "accept", "content": {}}}}
    {"id": 15, "do": "close", "session": "a"}

`offers` holds what the client declares itself able to answer: `elicitation`, `sampling`, `roots`; without it, nothing.
`answers` tells what it answers, which `script` changes: to an elicitation its result, to sampling
`{"model": …, "text": …}`, and as roots a list of URIs. `watch` asks to hear of lists that change, where an era wants that asked for.

The client answers each on stdout, in any order:

    {"id": 1, "ok": …}
    {"id": 2, "error": {"code": …, "message": …}}

Before that a call may give `{"id": 3, "progress": {…}}`. At any time a session may tell of an event:

    {"session": "a", "event": "tools_changed"}                also prompts_changed, resources_changed
    {"session": "a", "event": "updated", "uri": …}
    {"session": "a", "event": "log", "level": …, "data": …}
    {"session": "a", "event": "asked", "kind": "elicitation", "question": …}

A cancelled call ends with the error code `"cancelled"`. End of stdin means: close every session and leave.
"""

import asyncio
import contextlib
import json
import sys

LINE_LIMIT = 64 * 1024 * 1024


def say(**message):
    """Write one line to the harness."""
    print(json.dumps(message), flush=True)


async def serve(connect):
    """Obey the harness. `connect(url, peer)` is an async context manager that gives a session with `protocol` and a
    method for each order."""
    stdin = asyncio.StreamReader(limit=LINE_LIMIT)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    client = Client(connect)
    while line := await stdin.readline():
        client.obey(json.loads(line))
    await client.close()


class Peer:
    """The harness behind one session: what it lets the session answer, and what it wants to be told."""

    def __init__(self, name, offers, answers):
        self.name = name
        self.offers = frozenset(offers)
        self.answers = answers

    def tell(self, event, **details):
        """Tell of an event."""
        say(session=self.name, event=event, **details)

    def ask(self, kind, question=None):
        """Tell that the session was asked, and get the scripted answer."""
        self.tell("asked", kind=kind, question=question)
        return self.answers[kind]


class Client:
    """Many named sessions, and the orders under way."""

    def __init__(self, connect):
        self.connect = connect
        self.sessions = {}
        self.tasks = {}

    def obey(self, order):
        """Start what the harness asks for."""
        task = asyncio.create_task(self.answer(order))
        self.tasks[order["id"]] = task
        task.add_done_callback(lambda _: self.tasks.pop(order["id"]))

    async def answer(self, order):
        """Do it, and say how it went."""
        try:
            say(id=order["id"], ok=await getattr(self, "do_" + order["do"])(order))
        except asyncio.CancelledError:
            say(id=order["id"], error={"code": "cancelled", "message": "cancelled by the harness"})
        except BaseException as problem:  # whatever an SDK throws is for the harness to judge
            say(id=order["id"], error=describe(problem))

    async def do_connect(self, order):
        peer = Peer(order["session"], order.get("offers", ()), order.get("answers", {}))
        held = HeldSession(self.connect(order["url"], peer), peer)
        session = await held.opened
        self.sessions[peer.name] = held
        return {"protocol": session.protocol}

    async def do_list(self, order):
        return {"tools": await self.session(order).list_tools()}

    async def do_call(self, order):
        async def progress(done, total, message):
            say(id=order["id"], progress={"progress": done, "total": total, "message": message})

        wanted = progress if order.get("progress") else None
        return await self.session(order).call(order["name"], order["arguments"], wanted)

    async def do_cancel(self, order):
        self.tasks[order["call"]].cancel()

    async def do_prompts(self, order):
        return {"prompts": await self.session(order).prompts()}

    async def do_get_prompt(self, order):
        return await self.session(order).get_prompt(order["name"], order["arguments"])

    async def do_resources(self, order):
        return {"resources": await self.session(order).resources()}

    async def do_templates(self, order):
        return {"templates": await self.session(order).templates()}

    async def do_read(self, order):
        return await self.session(order).read(order["uri"])

    async def do_subscribe(self, order):
        await self.session(order).subscribe(order["uri"])

    async def do_watch(self, order):
        await self.session(order).watch()

    async def do_complete(self, order):
        return await self.session(order).complete(order["ref"], order["argument"])

    async def do_set_level(self, order):
        await self.session(order).set_level(order["level"])

    async def do_script(self, order):
        self.sessions[order["session"]].peer.answers = order["answers"]

    async def do_close(self, order):
        await self.sessions.pop(order["session"]).close()

    def session(self, order):
        return self.sessions[order["session"]].opened.result()

    async def close(self):
        """Close every session."""
        for held in self.sessions.values():
            with contextlib.suppress(Exception):
                await held.close()


class HeldSession:
    """A session kept open by a task of its own: the SDKs want it closed by the task that opened it."""

    def __init__(self, context, peer):
        self.peer = peer
        self.opened = asyncio.get_running_loop().create_future()
        self.closing = asyncio.Event()
        self.task = asyncio.create_task(self.hold(context))

    async def hold(self, context):
        try:
            async with context as session:
                self.opened.set_result(session)
                await self.closing.wait()
        except BaseException as problem:
            if self.opened.done():
                raise
            self.opened.set_exception(problem)

    async def close(self):
        self.closing.set()
        await self.task


async def every_page(ask, items, cursor):
    """The items of all pages of a list. `ask(cursor)` gives a page; `items` and `cursor` name what is in it."""
    found, at = [], None
    while True:
        page = await ask(at)
        found += [plain(item) for item in getattr(page, items)]
        at = getattr(page, cursor)
        if at is None:
            return found


def plain(model):
    """A model as it was on the wire."""
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


def describe(problem):
    """Code and message of a JSON-RPC error, also of one wrapped in exception groups; else the exception's own words."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    error = getattr(problem, "error", None)
    if error is not None:
        return {"code": error.code, "message": error.message}
    return {"code": None, "message": f"{type(problem).__name__}: {problem}"}
