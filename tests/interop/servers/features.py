"""What the servers of this suite offer besides tools that need nothing but an answer: prompts, resources, completion,
log messages, and lists that change. Both lines of the Python SDK take it as it is.

A server has a name, which is in all its URIs, so that many servers can stand behind one gateway.
"""

PEOPLE = ("Ada", "Alan", "Grace")
ITEMS = ("1", "10", "2")
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
BLOB = bytes(range(256))


def add_features(server, name, context, completion, peers):
    """Register everything on `server`. `context` and `completion` are the SDK's own classes, and `peers` knows the
    clients of the legacy era: `log(ctx, level, text)`, `updated(ctx, uri)`, `changed(ctx)`."""
    base = f"fixture-{name}://"

    @server.prompt()
    def greet(name: str) -> str:
        """Greets somebody."""
        return f"Hello, {name}!"

    @server.resource(base + "text", name="text", mime_type="text/plain")
    def text() -> str:
        return f"The text of {name}."

    @server.resource(base + "blob", name="blob", mime_type="application/octet-stream")
    def blob() -> bytes:
        return BLOB

    @server.resource(base + "item/{id}", name="item", mime_type="text/plain")
    def item(id: str) -> str:
        return f"Item {id} of {name}."

    @server.completion()
    async def complete(ref, argument, _):
        choices = PEOPLE if ref.type == "ref/prompt" else ITEMS
        values = [choice for choice in choices if choice.startswith(argument.value)]
        return completion(values=values, total=len(values), hasMore=False)

    @server.tool()
    async def log(tag: str, ctx: context) -> str:
        """Logs a message at four levels."""
        for level in ("debug", "info", "warning", "error"):
            await peers.log(ctx, level, f"{tag} {level}")
        return tag

    @server.tool()
    async def touch(uri: str, ctx: context) -> str:
        """Tells whoever subscribed to a resource that it has changed."""
        await peers.updated(ctx, uri)
        return uri

    @server.tool()
    async def grow(name: str, ctx: context) -> str:
        """Adds a tool, a prompt and a resource of that name."""

        def grown() -> str:
            """Grown at run time."""
            return name

        server.add_tool(grown, name=name)
        server.prompt(name=name)(grown)
        server.resource(base + name, name=name)(grown)
        await peers.changed(ctx)
        return name

    @server.tool()
    async def shrink(name: str, ctx: context) -> str:
        """Removes what `grow` has added."""
        server.remove_tool(name)
        # Neither line of the SDK can remove all three by a public name.
        server._prompt_manager._prompts.pop(name)
        server._resource_manager._resources.pop(base + name)
        await peers.changed(ctx)
        return name
