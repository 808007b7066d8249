"""The tools that every server written for this suite offers; both lines of the Python SDK take them as they are."""

import anyio

from watch import record


def add_tools(server, context, tool_error):
    """Register the tools on `server`; `context` and `tool_error` are the SDK's own classes."""

    @server.tool()
    async def echo(message: str) -> str:
        """Says the message back."""
        return message

    @server.tool()
    async def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    @server.tool()
    async def slow(tag: str) -> str:
        """Takes 100 ms and says the tag back."""
        await anyio.sleep(0.1)
        return tag

    @server.tool()
    async def progress(steps: int, interval_ms: int, ctx: context) -> str:
        """Reports its progress step by step."""
        for step in range(1, steps + 1):
            await ctx.report_progress(step, steps, f"step {step}")
            await anyio.sleep(interval_ms / 1000)
        return f"{steps} steps"

    @server.tool()
    async def fail() -> str:
        """Always fails."""
        raise tool_error("deliberate failure")

    @server.tool()
    async def long(seconds: float, tag: str) -> str:
        """Takes long, and records how it ended."""
        record("started", tag)
        try:
            await anyio.sleep(seconds)
        except anyio.get_cancelled_exc_class():
            record("cancelled", tag)
            raise
        record("finished", tag)
        return tag
