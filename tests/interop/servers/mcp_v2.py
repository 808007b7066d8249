"""A server on PyPI `mcp` 2.x: both eras, stateful in the legacy one. `mcp_v2.py PORT`."""

import sys

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from tools import add_tools
from watch import Watch

server = MCPServer("interop-mcp-v2")
add_tools(server, Context, ToolError)
uvicorn.run(Watch(server.streamable_http_app()), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
