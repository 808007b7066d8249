"""A client on PyPI `mcp` 2.x. `mcp_v2.py auto|legacy|2026-07-28`; obeys the line protocol of `lines.py`."""

import asyncio
import sys
import warnings
from contextlib import asynccontextmanager

from mcp.client import Client
from mcp.client.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp_types import (
    CreateMessageResult,
    ElicitResult,
    ListRootsResult,
    PromptListChangedNotification,
    PromptReference,
    ResourceListChangedNotification,
    ResourceTemplateReference,
    ResourceUpdatedNotification,
    Root,
    TextContent,
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from lines import every_page, plain, serve

LOG_LEVEL = "io.modelcontextprotocol/logLevel"
# In the legacy era changes come as notifications, in the modern one as events of a subscription.
CHANGES = {
    ToolListChangedNotification: "tools_changed",
    PromptListChangedNotification: "prompts_changed",
    ResourceListChangedNotification: "resources_changed",
    ToolsListChanged: "tools_changed",
    PromptsListChanged: "prompts_changed",
    ResourcesListChanged: "resources_changed",
}
# What the modern era has deprecated is what this suite is about.
warnings.simplefilter("ignore", MCPDeprecationWarning)


@asynccontextmanager
async def connect(url, peer):
    # Without a cache, so that every list is asked for.
    async with Client(url, mode=sys.argv[1], cache=None, **callbacks(peer)) as client:
        session = Session(client, peer)
        try:
            yield session
        finally:
            await session.stop()


def callbacks(peer):
    """What the SDK calls; it declares the capabilities that there are callbacks for."""

    async def notice(message):
        # The SDK shows a subscription's notifications here too.
        if "io.modelcontextprotocol/subscriptionId" not in (getattr(message.params, "meta", None) or {}):
            report(peer, message, getattr(message.params, "uri", None))

    async def log(params):
        peer.tell("log", level=params.level, data=params.data)

    async def elicitation(_, params):
        return ElicitResult(**peer.ask("elicitation", params.message))

    async def sampling(_, params):
        answer = peer.ask("sampling", params.messages[0].content.text)
        content = TextContent(type="text", text=answer["text"])
        return CreateMessageResult(role="assistant", model=answer["model"], content=content)

    async def roots(_):
        return ListRootsResult(roots=[Root(uri=uri) for uri in peer.ask("roots")])

    able = {"elicitation_callback": elicitation, "sampling_callback": sampling, "list_roots_callback": roots}
    offered = {"elicitation_callback": "elicitation", "sampling_callback": "sampling", "list_roots_callback": "roots"}
    return {
        "message_handler": notice,
        "logging_callback": log,
        **{name: callback for name, callback in able.items() if offered[name] in peer.offers},
    }


def report(peer, change, uri):
    """Tell of a notification or an event, if it is one of a change."""
    if isinstance(change, (ResourceUpdated, ResourceUpdatedNotification)):
        peer.tell("updated", uri=uri)
    elif type(change) in CHANGES:
        peer.tell(CHANGES[type(change)])


class Session:
    def __init__(self, client, peer):
        self.client = client
        self.peer = peer
        self.protocol = client.protocol_version
        self.modern = self.protocol in MODERN_PROTOCOL_VERSIONS
        self.meta = None
        self.listening = []

    async def list_tools(self):
        return await every_page(lambda at: self.client.list_tools(cursor=at), "tools", "next_cursor")

    async def prompts(self):
        return await every_page(lambda at: self.client.list_prompts(cursor=at), "prompts", "next_cursor")

    async def resources(self):
        return await every_page(lambda at: self.client.list_resources(cursor=at), "resources", "next_cursor")

    async def templates(self):
        ask = self.client.list_resource_templates
        return await every_page(lambda at: ask(cursor=at), "resource_templates", "next_cursor")

    async def call(self, name, arguments, progress):
        return plain(await self.client.call_tool(name, arguments, progress_callback=progress, meta=self.meta))

    async def get_prompt(self, name, arguments):
        return plain(await self.client.get_prompt(name, arguments))

    async def read(self, uri):
        return plain(await self.client.read_resource(uri))

    async def subscribe(self, uri):
        if self.modern:
            await self.listen(resource_subscriptions=[uri])
        else:
            await self.client.subscribe_resource(uri)

    async def watch(self):
        if self.modern:
            await self.listen(tools_list_changed=True, prompts_list_changed=True, resources_list_changed=True)

    async def listen(self, **wanted):
        """Open a subscription, and wait until the server has acknowledged it."""
        opened = asyncio.get_running_loop().create_future()
        self.listening.append(asyncio.create_task(self.hear(opened, wanted)))
        await opened

    async def hear(self, opened, wanted):
        try:
            async with self.client.listen(**wanted) as subscription:
                opened.set_result(None)
                async for event in subscription:
                    report(self.peer, event, getattr(event, "uri", None))
        except Exception as problem:
            if opened.done():
                raise
            opened.set_exception(problem)

    async def stop(self):
        """End every subscription."""
        for task in self.listening:
            task.cancel()
        await asyncio.gather(*self.listening, return_exceptions=True)

    async def complete(self, ref, argument):
        reference = PromptReference if ref["type"] == "ref/prompt" else ResourceTemplateReference
        return plain(await self.client.complete(reference(**ref), argument))

    async def set_level(self, level):
        if self.modern:
            self.meta = {LOG_LEVEL: level}
        else:
            await self.client.set_logging_level(level)


asyncio.run(serve(connect))
