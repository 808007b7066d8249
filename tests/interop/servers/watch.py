"""What a server saw of its long calls, for the harness to read.

Facts go as JSON lines to the file that `INTEROP_EVENTS` names. `Watch` is the ASGI layer that notices a caller
leaving before its answer was complete, which the MCP SDKs do not tell a tool about.
"""

import asyncio
import json
import os


def record(event, tag):
    """Append one fact about the call that carries `tag`."""
    line = json.dumps({"event": event, "tag": tag}) + "\n"
    with open(os.environ["INTEROP_EVENTS"], "a", encoding="utf-8") as file:
        file.write(line)


def tag_of(body):
    """The `tag` argument of a `tools/call`, or None."""
    try:
        return json.loads(body)["params"]["arguments"]["tag"]
    except (ValueError, KeyError, TypeError):
        return None


class Watch:
    """Records `disconnected` when the caller of a tagged call closes its connection before the answer is complete."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body, tag = await read_body(receive)
        answered = False
        inbox = asyncio.Queue()
        inbox.put_nowait({"type": "http.request", "body": body, "more_body": False})

        async def watch_for_leaving():
            message = await receive()
            if message["type"] == "http.disconnect" and tag is not None and not answered:
                record("disconnected", tag)
            inbox.put_nowait(message)

        async def send_and_note_end(message):
            nonlocal answered
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                answered = True
            await send(message)

        watcher = asyncio.create_task(watch_for_leaving())
        try:
            await self.app(scope, inbox.get, send_and_note_end)
        finally:
            watcher.cancel()


async def read_body(receive):
    """The whole body of a request and the tag in it."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body, tag_of(body)
