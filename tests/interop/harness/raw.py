"""MCP by hand, for what no SDK lets a test do."""

import json

import httpx

from .eras import LEGACY
from .failure import Failed
from .suite import expect_equal

SECONDS = 30
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


class Raw:
    """A legacy client that shows and takes session ids."""

    def __init__(self, gateway):
        self.gateway = gateway

    async def initialize(self):
        """Open a session; gives its id."""
        answer = await self.post(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "initialize",
                "params": {
                    "protocolVersion": LEGACY,
                    "capabilities": {},
                    "clientInfo": {"name": "interop-raw", "version": "1"},
                },
            }
        )
        expect_equal("the protocol version", message_of(answer)["result"]["protocolVersion"], LEGACY)
        session = answer.headers["mcp-session-id"]
        accepted = await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
        expect_equal("the status of a notification", accepted.status_code, 202)
        return session

    async def call(self, session, tool, arguments):
        """Call a tool in the session of that id; gives the result."""
        message = await self.attempt(session, tool, arguments)
        expect_equal("the id", message["id"], 2)
        if "result" not in message:
            raise Failed(f"no result but {message}")
        return message["result"]

    async def attempt(self, session, tool, arguments):
        """Call a tool in the session of that id; gives the whole answer, which may be an error."""
        params = {"name": tool, "arguments": arguments}
        answer = await self.post({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}, session)
        return message_of(answer)

    async def read(self, session, uri):
        """Read a resource in the session of that id; gives the whole answer."""
        return message_of(
            await self.post({"jsonrpc": "2.0", "id": 3, "method": "resources/read", "params": {"uri": uri}}, session)
        )

    async def delete(self, session):
        """End a session."""
        answer = await self.send("DELETE", session)
        expect_equal("the status of DELETE", answer.is_success, True)

    async def post(self, message, session=None):
        return await self.send("POST", session, json.dumps(message))

    async def send(self, verb, session, content=None):
        headers = dict(HEADERS)
        if session is not None:
            headers |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": LEGACY}
        async with httpx.AsyncClient(verify=self.gateway.trust, timeout=SECONDS, trust_env=False) as http:
            return await http.request(verb, self.gateway.url, content=content, headers=headers)


def message_of(answer):
    """The JSON-RPC response in an HTTP response, whether plain or at the end of an event stream."""
    expect_equal(f"the status (body {answer.text[:300]!r})", answer.status_code, 200)
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.json()
    data = [line.removeprefix("data:").strip() for line in answer.text.splitlines() if line.startswith("data:")]
    messages = [json.loads(text) for text in data if text]
    return next(message for message in messages if "id" in message)
