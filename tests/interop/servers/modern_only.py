"""Makes a server of both eras one of the modern era alone: it refuses what is legacy as such a server does."""

import json

from starlette.responses import JSONResponse, PlainTextResponse

from watch import read_body

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
INVALID_PARAMS = -32602
METHOD_NOT_FOUND = -32601


class ModernOnly:
    """The ASGI layer that does it."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["method"] != "POST":
            await PlainTextResponse("", 405, {"Allow": "POST"})(scope, receive, send)
        else:
            await self.post(scope, receive, send)

    async def post(self, scope, receive, send):
        body, _ = await read_body(receive)
        refused = refusal(body)
        if refused is not None:
            await refused(scope, receive, send)
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay():
            return next(messages, None) or await receive()

        await self.app(scope, replay, send)


def refusal(body):
    """The answer to a legacy message, or None when it is a modern one."""
    try:
        message = json.loads(body)
        if VERSION_KEY in message.get("params", {}).get("_meta", {}):
            return None
    except (ValueError, AttributeError):
        return None
    if message.get("method") == "initialize":
        return error(message, 404, METHOD_NOT_FOUND, "Method not found")
    if "id" not in message:
        return PlainTextResponse("", 202)
    return error(message, 400, INVALID_PARAMS, f"Missing _meta key {VERSION_KEY}")


def error(message, status, code, text):
    """A JSON-RPC error with an HTTP status."""
    body = {"jsonrpc": "2.0", "id": message.get("id"), "error": {"code": code, "message": text}}
    return JSONResponse(body, status)
