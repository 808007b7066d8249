"""The rows for npm `server-everything`, which has names of its own, and keeps no record of what it sees."""

import asyncio

from ...backends import EVERYTHING_SAMPLES, MESSAGE
from ...clients import CallError
from ...suite import expect, expect_equal
from ..cancelling import STARTED_SECONDS, expect_cancelled
from ...world import Route
from . import fixture
from .fixture import expect_error
from .pair import ROOTS, text_of

DOCUMENT = "demo://resource/static/document/features.md"
TEXT = "demo://resource/dynamic/text/"
BLOB = "demo://resource/dynamic/blob/"
LONG = "trigger-long-running-operation"
STEPS = 5


async def lists(pair):
    names = [tool["name"] for tool in await pair.session.list_tools()]
    wanted = {pair.prefix + tool for tool, _ in EVERYTHING_SAMPLES}
    expect(wanted <= set(names), f"missing: {wanted - set(names)}")
    expect_equal("names that come twice", len(names) - len(set(names)), 0)


async def calls(pair):
    expect_equal("the message", await pair.said("echo", message=MESSAGE), f"Echo: {MESSAGE}")
    expect("42" in await pair.said("get-sum", a=19, b=23), "19 and 23 are not 42")


async def quiet(pair):
    """A session that offers nothing: this server asks by itself for roots, a moment after a session is opened, and in the
    modern era that interrupts whatever call is under way. rmcp hears no progress after that, and node begins anew."""
    name = f"{pair.backend.name}-quiet-{pair.tag()}"
    return Route(await pair.client.connect(pair.matrix.url(pair.backend), name), pair.prefix)


async def progresses(pair):
    call = (await quiet(pair)).begin(LONG, {"duration": 0.2, "steps": STEPS}, progress=True)
    await call.result()
    # Node's modern client tells of progress of its own, without a total, when the server asks something meanwhile.
    steps = [step["progress"] for step in call.progress if step["total"] == STEPS]
    expect_equal("the progress", steps, list(range(1, STEPS + 1)))


async def fails(pair):
    """It has no tool that fails by design, but says of bad arguments in a result that they are bad."""
    try:
        result = await pair.call("get-sum", {"a": "x", "b": "y"})
    except CallError as error:
        expect_equal("the code for bad arguments", error.code, fixture.INVALID_PARAMS)
    else:
        expect_equal("isError", result.get("isError"), True)
    try:
        result = await pair.call(fixture.UNKNOWN, {})
    except CallError as error:
        expect_equal("the code for an unknown tool", error.code, fixture.INVALID_PARAMS)
    else:
        expect(pair.is_direct and result.get("isError"), f"a result came for an unknown tool: {result}")


async def cancels(pair):
    route = await quiet(pair)
    call = route.begin(LONG, {"duration": 20, "steps": 100}, progress=True)
    other = route.begin(LONG, {"duration": 1, "steps": STEPS})
    # Cancelled only when it runs for certain.
    await asyncio.wait_for(call.progressed.wait(), STARTED_SECONDS)
    await route.session.cancel(call)
    await expect_cancelled(call)
    expect("completed" in text_of(await other.result()), "the other call did not complete")


async def prompts(pair):
    found = {prompt["name"] for prompt in await pair.session.prompts()}
    expect(pair.prefix + "args-prompt" in found, f"it is not among {sorted(found)}")
    got = await pair.session.ask("get_prompt", name=pair.prefix + "args-prompt", arguments={"city": "Paris"})
    expect_equal("the prompt", got["messages"][0]["content"]["text"], "What's weather in Paris?")
    asking = pair.session.ask("get_prompt", name=pair.prefix + fixture.UNKNOWN, arguments={})
    await expect_error(asking, pair, fixture.INVALID_PARAMS)


async def resources(pair):
    uris = {resource["uri"] for resource in await pair.session.resources()}
    expect(DOCUMENT in uris, f"it is not among {sorted(uris)}")
    templates = {template["uriTemplate"] for template in await pair.session.templates()}
    expect(TEXT + "{resourceId}" in templates, f"it is not among {sorted(templates)}")
    expect((await pair.session.read(DOCUMENT))[0]["text"], "the document is empty")
    expect("Resource 7" in (await pair.session.read(TEXT + "7"))[0]["text"], "the text is another's")
    expect((await pair.session.read(BLOB + "7"))[0]["blob"], "the blob is empty")
    await expect_error(pair.session.read("demo://nothing"), pair, fixture.not_found(pair))


async def subscribes(pair):
    await pair.session.ask("subscribe", uri=DOCUMENT)
    since = len(pair.session.events)
    # It sends updates for as long as this is on.
    await pair.call("toggle-subscriber-updates", {})
    try:
        await pair.session.hear("updated", since, uri=DOCUMENT)
    finally:
        await pair.call("toggle-subscriber-updates", {})


async def completes(pair):
    prompt = {"type": "ref/prompt", "name": pair.prefix + "completable-prompt"}
    expect_equal("the departments", await pair.session.complete(prompt, "department", "S"), ["Sales", "Support"])
    template = {"type": "ref/resource", "uri": TEXT + "{resourceId}"}
    expect_equal("the ids", await pair.session.complete(template, "resourceId", "7"), ["7"])


async def logs(pair):
    """It logs at random levels; at level debug all of them must come."""
    await pair.session.ask("set_level", level="debug")
    since = len(pair.session.events)
    await pair.call("toggle-simulated-logging", {})
    try:
        await pair.session.hear("log", since)
    finally:
        await pair.call("toggle-simulated-logging", {})


async def changes(pair):
    """It has a tool that adds a resource to the session, which is gone with the session."""
    await pair.session.ask("watch")
    name = pair.tag()
    async with pair.changing:
        since = len(pair.session.events)
        arguments = {"name": name, "data": "data:text/plain,hello", "outputType": "resourceLink"}
        link = (await pair.call("gzip-file-as-resource", arguments))["content"][0]
        await pair.session.hear("resources_changed", since)
    expect_equal("what is linked", link["type"], "resource_link")
    expect((await pair.session.read(link["uri"]))[0]["blob"], "the blob is empty")


async def elicits(pair):
    await pair.session.script(elicitation={"action": "accept", "content": {"name": "Ada"}})
    expect("Name: Ada" in await pair.said("trigger-elicitation-request"), "the tool does not know the name")
    await pair.session.script(elicitation={"action": "decline"})
    expect("declined" in await pair.said("trigger-elicitation-request"), "the tool does not know it was declined")


async def samples(pair):
    await pair.session.script(sampling={"model": "test-model", "text": "Fine."})
    said = await pair.said("trigger-sampling-request", prompt="How are you?", maxTokens=10)
    expect("Fine." in said and "test-model" in said, f"the tool says {said}")


async def roots(pair):
    """It asks for them soon after connecting, and not again."""
    said = await pair.said("get-roots-list")
    expect(ROOTS[0] in said, f"the tool says {said}")


ROWS = {
    "list": lists,
    "call": calls,
    "progress": progresses,
    "error": fails,
    "cancel": cancels,
    "prompts": prompts,
    "resources": resources,
    "subscribe": subscribes,
    "completion": completes,
    "logging": logs,
    "list_changed": changes,
    "elicitation": elicits,
    "sampling": samples,
    "roots": roots,
}
