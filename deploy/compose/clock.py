"""A small MCP server: what time it is."""

import os
from datetime import datetime
from zoneinfo import ZoneInfo

from mcp.server.fastmcp import FastMCP
from mcp.types import ToolAnnotations

server = FastMCP("clock", host=os.environ.get("HOST", "0.0.0.0"), port=int(os.environ.get("PORT", "3002")))


@server.tool(annotations=ToolAnnotations(readOnlyHint=True))
def now(zone: str = "UTC") -> str:
    """The time in a zone, such as Europe/Berlin."""
    return datetime.now(ZoneInfo(zone)).isoformat(timespec="seconds")


server.run("streamable-http")
