"""An SDK client of one era, which answers whatever it is asked."""

from contextlib import asynccontextmanager

import mcp_types as types
from mcp.client import Client
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from harness.failure import Failed

# How the SDK is told what to speak. It falls back from `auto`, so what came of it is looked at.
MODES = {"legacy": "legacy", "modern": "auto"}


@asynccontextmanager
async def connect(url, kind):
    """A client of one era. It says yes to every form, with the defaults where there are some."""
    async with Client(url, mode=MODES[kind], cache=None, elicitation_callback=fill_in) as client:
        if (client.protocol_version in MODERN_PROTOCOL_VERSIONS) != (kind == "modern"):
            raise Failed(f"the client should be {kind}, and speaks {client.protocol_version}")
        yield client


async def fill_in(context, params):
    """Accept a form. A field without a default gets the simplest value of its type."""
    fields = params.requested_schema.get("properties", {})
    values = {name: field.get("default", SIMPLEST.get(field.get("type"), "")) for name, field in fields.items()}
    return types.ElicitResult(action="accept", content=values)


SIMPLEST = {"boolean": True, "integer": 1, "number": 1.0, "string": "text"}
