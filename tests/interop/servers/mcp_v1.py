"""A server on PyPI `mcp` 1.x: legacy era, stateful. `mcp_v1.py PORT NAME [sse]`; instead of a port, `stdio`."""

import contextlib
import sys
import weakref

import anyio
import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.fastmcp.exceptions import ToolError
from mcp.server.lowlevel import NotificationOptions
from mcp.types import Completion, SamplingMessage, TextContent
from pydantic import BaseModel

from features import LEVELS, add_features
from tools import add_tools
from watch import Watch

TOLD_SECONDS = 2


class Peers:
    """The sessions: who is there, what each wants logged, and what it has subscribed to."""

    def __init__(self):
        self.everyone = weakref.WeakSet()
        self.levels = weakref.WeakKeyDictionary()
        self.subscribers = {}

    async def log(self, ctx, level, text):
        if LEVELS.index(level) >= LEVELS.index(self.levels.get(ctx.session, "debug")):
            await ctx.log(level, text, logger_name="fixture")

    async def updated(self, ctx, uri):
        for session in list(self.subscribers.get(uri, ())):
            await told(session.send_resource_updated(uri))

    async def changed(self, ctx):
        for session in list(self.everyone):
            await told(session.send_tool_list_changed())
            await told(session.send_prompt_list_changed())
            await told(session.send_resource_list_changed())


async def told(sending):
    """Wait for a notification to be sent, but for no client that is gone."""
    with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError), anyio.move_on_after(TOLD_SECONDS):
        await sending


class Server(FastMCP):
    """Remembers every session that has listed the tools."""

    async def list_tools(self):
        peers.everyone.add(self.get_context().session)
        return await super().list_tools()


class Name(BaseModel):
    name: str


peers = Peers()
server = Server("interop-mcp-v1")
add_tools(server, Context, ToolError)
add_features(server, sys.argv[2], Context, Completion, peers)
lowlevel = server._mcp_server


@lowlevel.set_logging_level()
async def set_level(level):
    peers.levels[lowlevel.request_context.session] = level


@lowlevel.subscribe_resource()
async def subscribe(uri):
    peers.subscribers.setdefault(str(uri), weakref.WeakSet()).add(lowlevel.request_context.session)


@lowlevel.unsubscribe_resource()
async def unsubscribe(uri):
    peers.subscribers.get(str(uri), weakref.WeakSet()).discard(lowlevel.request_context.session)


@server.tool()
async def ask_user(question: str, ctx: Context) -> str:
    """Asks the user for a name."""
    answer = await ctx.elicit(question, Name)
    return f"accept {answer.data.name}" if answer.action == "accept" else answer.action


@server.tool()
async def ask_model(question: str, ctx: Context) -> str:
    """Asks the client's model."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text=question))
    answer = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return f"{answer.model} {answer.content.text}"


@server.tool()
async def ask_roots(ctx: Context) -> str:
    """Asks for the client's roots; this SDK asks on the session's own stream, not on that of the call."""
    return " ".join(str(root.uri) for root in (await ctx.session.list_roots()).roots)


def initialization_options():
    """With the capabilities that this server has: the SDK's own transport declares none of these three."""
    everything = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
    options = type(lowlevel).create_initialization_options(lowlevel, everything)
    options.capabilities.resources.subscribe = True
    return options


lowlevel.create_initialization_options = initialization_options
if sys.argv[1] == "stdio":
    anyio.run(server.run_stdio_async)
else:
    app = server.sse_app() if sys.argv[3:] == ["sse"] else server.streamable_http_app()
    uvicorn.run(Watch(app), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
