"""A client on PyPI `mcp` 1.x; it speaks the legacy era. Obeys the line protocol of `lines.py`."""

import asyncio
from contextlib import asynccontextmanager

from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CancelledNotification,
    CancelledNotificationParams,
    ClientNotification,
    CreateMessageResult,
    ElicitResult,
    ListRootsResult,
    PaginatedRequestParams,
    PromptListChangedNotification,
    PromptReference,
    ResourceListChangedNotification,
    ResourceTemplateReference,
    ResourceUpdatedNotification,
    Root,
    ServerNotification,
    TextContent,
    ToolListChangedNotification,
)
from pydantic import AnyUrl

from lines import every_page, plain, serve

CHANGES = {
    ToolListChangedNotification: "tools_changed",
    PromptListChangedNotification: "prompts_changed",
    ResourceListChangedNotification: "resources_changed",
}


@asynccontextmanager
async def connect(url, peer):
    async with (
        streamable_http_client(url) as (read, write, _),
        ClientSession(read, write, **callbacks(peer)) as session,
    ):
        initialized = await session.initialize()
        yield Session(session, initialized.protocolVersion)


def callbacks(peer):
    """What the SDK calls; it declares the capabilities that there are callbacks for."""

    async def notice(message):
        if not isinstance(message, ServerNotification):
            return
        if isinstance(message.root, ResourceUpdatedNotification):
            peer.tell("updated", uri=str(message.root.params.uri))
        elif type(message.root) in CHANGES:
            peer.tell(CHANGES[type(message.root)])

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


class Session:
    def __init__(self, session, protocol):
        self.session = session
        self.protocol = protocol

    async def list_tools(self):
        return await self.every_page(self.session.list_tools, "tools")

    async def prompts(self):
        return await self.every_page(self.session.list_prompts, "prompts")

    async def resources(self):
        return await self.every_page(self.session.list_resources, "resources")

    async def templates(self):
        return await self.every_page(self.session.list_resource_templates, "resourceTemplates")

    async def every_page(self, ask, items):
        return await every_page(lambda at: ask(params=PaginatedRequestParams(cursor=at)), items, "nextCursor")

    async def call(self, name, arguments, progress):
        # 1.x has no public way to cancel, nor to learn the id that the next request will have.
        request_id = self.session._request_id
        try:
            result = await self.session.call_tool(name, arguments, progress_callback=progress)
        except asyncio.CancelledError:
            params = CancelledNotificationParams(requestId=request_id, reason="cancelled by the harness")
            await self.session.send_notification(
                ClientNotification(CancelledNotification(method="notifications/cancelled", params=params))
            )
            raise
        return plain(result)

    async def get_prompt(self, name, arguments):
        return plain(await self.session.get_prompt(name, arguments))

    async def read(self, uri):
        return plain(await self.session.read_resource(AnyUrl(uri)))

    async def subscribe(self, uri):
        await self.session.subscribe_resource(AnyUrl(uri))

    async def watch(self):
        """The legacy era tells unasked."""

    async def complete(self, ref, argument):
        reference = PromptReference if ref["type"] == "ref/prompt" else ResourceTemplateReference
        return plain(await self.session.complete(reference(**ref), argument))

    async def set_level(self, level):
        await self.session.set_logging_level(level)


asyncio.run(serve(connect))
