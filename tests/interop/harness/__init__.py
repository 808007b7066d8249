"""Drives real MCP clients against real MCP servers, through Toolgate or straight."""
