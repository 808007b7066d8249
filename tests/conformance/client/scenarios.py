"""What the suite's scenarios for clients want of a client. Each tells what its server looks at."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from harness.failure import Failed

KINDS = ("legacy", "modern")
MODERN = "2026-07-28"
LEGACY = "2025-11-25"


@dataclass(frozen=True)
class Scenario:
    """`versions` are what the suite's server speaks; `tools`, what it has at the least."""

    play: Callable[..., Awaitable]
    versions: tuple
    tools: tuple = ()


async def only_list(session, data):
    """List the tools, of which there are none."""
    await session.list_tools()


async def add_numbers(session, data):
    """Call the one tool there is, with numbers."""
    await listed(session, "add_numbers")
    result = await session.call_tool("add_numbers", {"a": 5, "b": 3})
    expect_text(result, "8")


async def use_everything(session, data):
    """Send every request that has a name to be repeated in a header."""
    await listed(session, "test_headers", "my-hyphenated-tool")
    await session.call_tool("test_headers", {})
    await session.call_tool("my-hyphenated-tool", {})
    for resource in (await session.list_resources()).resources:
        await session.read_resource(resource.uri)
    for prompt in (await session.list_prompts()).prompts:
        await session.get_prompt(prompt.name)


async def call_as_told(session, data):
    """Call what the suite wants called: every kind of value that has to stand in a header."""
    await session.list_tools()
    for call in data["toolCalls"]:
        await session.call_tool(call["name"], call["arguments"])


async def call_all_listed(session, data):
    """Call every tool that is shown. Those with a header that cannot be are not to be shown, so not called."""
    tools = await session.list_tools()
    for tool in tools.tools:
        fields = tool.input_schema.get("properties", {})
        await session.call_tool(tool.name, {name: EXAMPLES[field["type"]] for name, field in fields.items()})


EXAMPLES = {"array": [], "null": None, "object": {}, "string": "text"}


async def reconnect(session, data):
    """Call a tool whose stream is closed before the result is sent.

    Who comes back for it, half a second later and with the id of the last event, is the gateway.
    """
    await listed(session, "test_reconnection")
    result = await session.call_tool("test_reconnection", {})
    expect_text(result, "completed")


async def answer_questions(session, data):
    """Call tools that ask before they answer; between them one that does not, and one that says nothing of it."""
    await listed(session, *MRTR_TOOLS)
    for name, answer in MRTR_TOOLS.items():
        result = await session.call_tool(name, {})
        expect_text(result, answer)


MRTR_TOOLS = {
    "test_mrtr_echo_state": "echo-state-ok",
    "test_mrtr_unrelated": "unrelated-ok",
    "test_mrtr_no_state": "no-state-ok",
    "test_mrtr_no_result_type": "no-result-type-test-ok",
}


async def accept_defaults(session, data):
    """Call a tool that asks for a form, all of whose fields have defaults."""
    await listed(session, "test_client_elicitation_defaults")
    await session.call_tool("test_client_elicitation_defaults", {})


async def echo_schema(session, data):
    """Give back the schema of a tool as it was shown."""
    tools = await listed(session, "json_schema_2020_12_tool", "json_schema_echo")
    await session.call_tool("json_schema_echo", {"schema": tools["json_schema_2020_12_tool"].input_schema})


async def listed(session, *names):
    """The tools by name, of which these must be there."""
    tools = {tool.name: tool for tool in (await session.list_tools()).tools}
    if missing := sorted(set(names) - set(tools)):
        raise Failed(f"not listed: {', '.join(missing)}")
    return tools


def expect_text(result, words):
    """Fail unless the result is one text that contains `words`."""
    texts = [part.text for part in result.content if part.type == "text"]
    if result.is_error or not any(words in text for text in texts):
        raise Failed(f"the result should contain {words!r}, and is {result.model_dump(exclude_none=True)}")


SCENARIOS = {
    # Looks at each `initialize`: a version that exists, a client's name and version. The gateway's own.
    "initialize": Scenario(only_list, (LEGACY,)),
    # Looks at the arguments of the first call: that they are numbers still.
    "tools_call": Scenario(add_numbers, (LEGACY, MODERN), ("add_numbers",)),
    # Looks at every request, and remembers the worst: the version in header and body, the client's capabilities,
    # its name. Refuses the very first one, whatever that is, and wants it again in a version that it has named.
    # All of them are the gateway's own: the server has no tools.
    "request-metadata": Scenario(only_list, (MODERN,)),
    # Looks at `Mcp-Method` of each method's first request, and at `Mcp-Name` where there is a name.
    "http-standard-headers": Scenario(use_everything, (MODERN,), ("test_headers", "my-hyphenated-tool")),
    # Looks at `Mcp-Param-*`: one for each argument that has a header, in base64 where it has to be, none for null.
    "http-custom-headers": Scenario(call_as_told, (MODERN,), ("test_custom_headers", "test_custom_headers_null")),
    # Looks at which tools are called: the valid one, and none whose header cannot be.
    "http-invalid-tool-headers": Scenario(call_all_listed, (MODERN,), ("valid_tool",)),
    # Looks at the last GET: that it came 450 to 700 ms after the stream was closed (more is a warning, and from
    # 1000 ms on a failure), and at the first Last-Event-ID.
    "sse-retry": Scenario(reconnect, (LEGACY,), ("test_reconnection",)),
    # Looks at the second request of a call: another id, the state exactly as it was sent, or none.
    "sep-2322-client-request-state": Scenario(answer_questions, (MODERN,), tuple(MRTR_TOOLS)),
    # Looks at the form that comes back.
    "elicitation-sep1034-client-defaults": Scenario(accept_defaults, (LEGACY,), ("test_client_elicitation_defaults",)),
    # Looks at whether a URL in a schema is fetched.
    "json-schema-ref-no-deref": Scenario(only_list, (MODERN,)),
    # Looks at the schema that comes back.
    "json-schema-2020-12-preservation": Scenario(
        echo_schema, (LEGACY, MODERN), ("json_schema_2020_12_tool", "json_schema_echo")
    ),
}
