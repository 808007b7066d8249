"""A server on PyPI `mcp` 2.x: both eras, stateful in the legacy one. `mcp_v2.py PORT NAME [modern-only]`;
instead of a port, `stdio`."""

import contextlib
import sys
from typing import Annotated

import anyio
import uvicorn
from mcp.server.elicitation import ElicitationResult
from mcp.server.lowlevel.server import NotificationOptions
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, ListRoots, Resolve, Sample
from mcp_types import (
    Completion,
    CreateMessageResult,
    EmptyResult,
    ListRootsResult,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    UnsubscribeRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

from features import LEVELS, add_features
from modern_only import ModernOnly
from tools import add_tools
from watch import Watch

TOLD_SECONDS = 2


class Peers:
    """The sessions of the legacy era by their ids: who is there, what each wants logged, and what it has subscribed
    to. In the modern era the SDK knows all that by itself."""

    def __init__(self):
        self.everyone = {}
        self.levels = {}
        self.subscribers = {}

    async def remember(self, ctx, call_next):
        """The middleware that sees every request."""
        session = session_id(ctx)
        if session is not None:
            self.everyone[session] = ctx.session
        return await call_next(ctx)

    async def log(self, ctx, level, text):
        wanted = self.levels.get(session_id(ctx.request_context), "debug")
        if LEVELS.index(level) >= LEVELS.index(wanted):
            await ctx.log(level, text, logger_name="fixture")

    async def updated(self, ctx, uri):
        await ctx.notify_resource_updated(uri)
        for session in list(self.subscribers.get(uri, ())):
            await told(self.everyone[session].send_resource_updated(uri))

    async def changed(self, ctx):
        await ctx.notify_tools_changed()
        await ctx.notify_prompts_changed()
        await ctx.notify_resources_changed()
        for session in list(self.everyone.values()):
            await told(session.send_tool_list_changed())
            await told(session.send_prompt_list_changed())
            await told(session.send_resource_list_changed())

    async def set_level(self, ctx, params):
        self.levels[session_id(ctx)] = params.level
        return EmptyResult()

    async def subscribe(self, ctx, params):
        self.subscribers.setdefault(params.uri, set()).add(session_id(ctx))
        return EmptyResult()

    async def unsubscribe(self, ctx, params):
        self.subscribers.get(params.uri, set()).discard(session_id(ctx))
        return EmptyResult()


def session_id(ctx):
    """The session that a request belongs to, which in the modern era is none, and over stdio the only one."""
    if ctx.request is None:
        return None if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS else "stdio"
    return ctx.request.headers.get("mcp-session-id")


async def told(sending):
    """Wait for a notification to be sent, but for no client that is gone."""
    with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError), anyio.move_on_after(TOLD_SECONDS):
        await sending


class Name(BaseModel):
    name: str


peers = Peers()
server = MCPServer("interop-mcp-v2", middleware=[peers.remember])
add_tools(server, Context, ToolError)
add_features(server, sys.argv[2], Context, Completion, peers)
lowlevel = server._lowlevel_server
lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, peers.set_level)
lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, peers.subscribe)
lowlevel.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, peers.unsubscribe)


async def user(question: str) -> Elicit[Name]:
    return Elicit(question, Name)


async def model(question: str) -> Sample:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=question))
    return Sample([message], max_tokens=100)


async def roots() -> ListRoots:
    return ListRoots()


@server.tool()
async def ask_user(question: str, answer: Annotated[ElicitationResult[Name], Resolve(user)]) -> str:
    """Asks the user for a name."""
    return f"accept {answer.data.name}" if answer.action == "accept" else answer.action


@server.tool()
async def ask_model(question: str, answer: Annotated[CreateMessageResult, Resolve(model)]) -> str:
    """Asks the client's model."""
    return f"{answer.model} {answer.content.text}"


@server.tool()
async def ask_roots(answer: Annotated[ListRootsResult, Resolve(roots)]) -> str:
    """Asks for the client's roots."""
    return " ".join(str(root.uri) for root in answer.roots)


def initialization_options():
    """With the capabilities that this server has: the SDK's own transport declares none of these three."""
    everything = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
    return type(lowlevel).create_initialization_options(lowlevel, everything)


lowlevel.create_initialization_options = initialization_options
if sys.argv[1] == "stdio":
    anyio.run(server.run_stdio_async)
else:
    app = server.streamable_http_app()
    if sys.argv[3:] == ["modern-only"]:
        app = ModernOnly(app)
    uvicorn.run(Watch(app), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
