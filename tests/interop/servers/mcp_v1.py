"""A server on PyPI `mcp` 1.x: legacy era, stateful. `mcp_v1.py PORT`."""

import sys

import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.fastmcp.exceptions import ToolError

from tools import add_tools
from watch import Watch

server = FastMCP("interop-mcp-v1")
add_tools(server, Context, ToolError)
uvicorn.run(Watch(server.streamable_http_app()), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
