"""A client on PyPI `mcp` 1.x; it speaks the legacy era. Obeys the line protocol of `lines.py`."""

import asyncio
from contextlib import asynccontextmanager

from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CancelledNotification,
    CancelledNotificationParams,
    ClientNotification,
    PaginatedRequestParams,
    ServerNotification,
    ToolListChangedNotification,
)

from lines import serve


@asynccontextmanager
async def connect(url, tools_changed):
    async def notice(message):
        if isinstance(message, ServerNotification) and isinstance(message.root, ToolListChangedNotification):
            tools_changed()

    async with (
        streamable_http_client(url) as (read, write, _),
        ClientSession(read, write, message_handler=notice) as session,
    ):
        initialized = await session.initialize()
        yield Session(session, initialized.protocolVersion)


class Session:
    def __init__(self, session, protocol):
        self.session = session
        self.protocol = protocol

    async def list_tools(self):
        tools, cursor = [], None
        while True:
            page = await self.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            tools += [tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in page.tools]
            cursor = page.nextCursor
            if cursor is None:
                return tools

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
        return result.model_dump(by_alias=True, mode="json", exclude_none=True)


asyncio.run(serve(connect))
