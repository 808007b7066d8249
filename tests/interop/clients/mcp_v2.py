"""A client on PyPI `mcp` 2.x. `mcp_v2.py auto|legacy`; obeys the line protocol of `lines.py`."""

import asyncio
import sys
from contextlib import asynccontextmanager

from mcp.client import Client
from mcp_types import ToolListChangedNotification

from lines import serve


@asynccontextmanager
async def connect(url, tools_changed):
    async def notice(message):
        if isinstance(message, ToolListChangedNotification):
            tools_changed()

    # Without a cache, so that every list is asked for.
    async with Client(url, mode=sys.argv[1], cache=None, message_handler=notice) as client:
        yield Session(client)


class Session:
    def __init__(self, client):
        self.client = client
        self.protocol = client.protocol_version

    async def list_tools(self):
        tools, cursor = [], None
        while True:
            page = await self.client.list_tools(cursor=cursor)
            tools += [tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return tools

    async def call(self, name, arguments, progress):
        result = await self.client.call_tool(name, arguments, progress_callback=progress)
        return result.model_dump(by_alias=True, mode="json", exclude_none=True)


asyncio.run(serve(connect))
