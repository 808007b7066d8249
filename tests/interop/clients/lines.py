"""The line protocol between the harness and a client program, for the Python clients.

One JSON object a line. The harness writes to stdin:

    {"id": 1, "do": "connect", "session": "a", "url": "http://127.0.0.1:3001/mcp"}
    {"id": 2, "do": "list", "session": "a"}
    {"id": 3, "do": "call", "session": "a", "name": "echo", "arguments": {}, "progress": true}
    {"id": 4, "do": "cancel", "call": 3}
    {"id": 5, "do": "close", "session": "a"}

The client answers each on stdout, in any order:

    {"id": 1, "ok": …}
    {"id": 2, "error": {"code": …, "message": …}}

Before that a call may give `{"id": 3, "progress": {…}}`; a session `{"session": "a", "event": "tools_changed"}`. A
cancelled call ends with the error code `"cancelled"`. End of stdin means: close every session and leave.
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
    """Obey the harness. `connect(url, tools_changed)` is an async context manager that gives a session with
    `protocol`, `list_tools()` and `call(name, arguments, progress)`."""
    stdin = asyncio.StreamReader(limit=LINE_LIMIT)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    client = Client(connect)
    while line := await stdin.readline():
        client.obey(json.loads(line))
    await client.close()


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
        name = order["session"]
        held = HeldSession(self.connect(order["url"], lambda: say(session=name, event="tools_changed")))
        session = await held.opened
        self.sessions[name] = held
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

    def __init__(self, context):
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


def describe(problem):
    """Code and message of a JSON-RPC error, also of one wrapped in exception groups; else the exception's own words."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    error = getattr(problem, "error", None)
    if error is not None:
        return {"code": error.code, "message": error.message}
    return {"code": None, "message": f"{type(problem).__name__}: {problem}"}
