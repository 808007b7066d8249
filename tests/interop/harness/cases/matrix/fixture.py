"""The rows for the servers written for this suite. All offer the same under the same names."""

import base64

from ...backends import MESSAGE, OUR_PROGRESS
from ...clients import CallError
from ...eras import LEGACY
from ...failure import Failed
from ...suite import expect, expect_equal
from ..calling import INVALID_PARAMS, UNKNOWN
from ..cancelling import cancels_and_goes_on
from .pair import ROOTS, text_of

TOOLS = {
    *("echo", "add", "slow", "progress", "fail", "long"),
    *("log", "touch", "grow", "shrink", "ask_user", "ask_model", "ask_roots"),
}
GROWN = "grown"
BLOB = bytes(range(256))
NOT_FOUND = -32002


async def lists(pair):
    names = [tool["name"] for tool in await pair.session.list_tools()]
    mine = {name.removeprefix(pair.prefix) for name in names if name.startswith(pair.prefix)}
    expect_equal("the tools", {name for name in mine if not name.startswith(GROWN)}, TOOLS)
    expect_equal("names that come twice", len(names) - len(set(names)), 0)


async def calls(pair):
    expect_equal("the message", await pair.said("echo", message=MESSAGE), MESSAGE)
    expect("42" in await pair.said("add", a=19, b=23), "19 and 23 are not 42")


async def progresses(pair):
    tool, arguments = OUR_PROGRESS
    call = pair.begin(tool, arguments, progress=True)
    expect_equal("the result", text_of(await call.result()), f"{arguments['steps']} steps")
    steps = [(step["progress"], step["total"], step["message"]) for step in call.progress]
    total = arguments["steps"]
    if pair.backend.name.startswith("mcpgo"):
        # It sends a session's notifications on whichever of two streams is free, so their order is not kept.
        steps.sort()
    expect_equal("the progress", steps, [(n, total, f"step {n}") for n in range(1, total + 1)])


async def fails(pair):
    result = await pair.call("fail", {})
    expect_equal("isError", result.get("isError"), True)
    expect("deliberate failure" in text_of(result), f"the tool's own words are lost: {result}")
    try:
        result = await pair.call(UNKNOWN, {})
    except CallError as error:
        expect_equal("the code for an unknown tool", error.code, INVALID_PARAMS)
    else:
        # Some servers say so in a result; the gateway knows better.
        expect(pair.is_direct and result.get("isError"), f"a result came for an unknown tool: {result}")


async def cancels(pair):
    await cancels_and_goes_on(pair, pair.backend, pair.tag(), pair.tag())


async def prompts(pair):
    found = {prompt["name"]: prompt for prompt in await pair.session.prompts()}
    greet = found.get(pair.prefix + "greet")
    expect(greet is not None, f"no greet among {sorted(found)}")
    arguments = [(argument["name"], argument.get("required")) for argument in greet["arguments"]]
    expect_equal("the arguments", arguments, [("name", True)])
    got = await pair.session.ask("get_prompt", name=pair.prefix + "greet", arguments={"name": "Ada"})
    expect_equal("the prompt", [message["content"]["text"] for message in got["messages"]], ["Hello, Ada!"])
    await expect_error(pair.session.ask("get_prompt", name=pair.prefix + UNKNOWN, arguments={}), pair, INVALID_PARAMS)


async def resources(pair):
    uris = {resource["uri"] for resource in await pair.session.resources()}
    expect({pair.base + "text", pair.base + "blob"} <= uris, f"they are not among {sorted(uris)}")
    templates = {template["uriTemplate"] for template in await pair.session.templates()}
    expect(pair.base + "item/{id}" in templates, f"it is not among {sorted(templates)}")
    await expect_content(pair, "text", text=f"The text of {pair.backend.name}.")
    await expect_content(pair, "item/7", text=f"Item 7 of {pair.backend.name}.")
    await expect_content(pair, "blob", blob=base64.b64encode(BLOB).decode())
    await expect_error(pair.session.read(pair.base + UNKNOWN), pair, not_found(pair))


def not_found(pair):
    """The code that the client shows for a resource that is not there."""
    return NOT_FOUND if pair.era == LEGACY and not pair.client.kind.renames_not_found else INVALID_PARAMS


async def expect_content(pair, path, **content):
    got = await pair.session.read(pair.base + path)
    expect_equal("the number of contents", len(got), 1)
    wanted = {"uri": pair.base + path, **content}
    expect_equal("the content", {key: got[0].get(key) for key in wanted}, wanted)


async def expect_error(asking, pair, code):
    """Servers differ in their codes; the gateway is held to the specification's where it is it that knows."""
    try:
        answer = await asking
    except CallError as error:
        expect(error.code is not None, f"no error of the server but {error.message}")
        if not (pair.is_direct or pair.is_alone and code == not_found(pair)):
            expect_equal("the code", error.code, code)
    else:
        raise Failed(f"an answer came instead of an error: {answer}")


async def subscribes(pair):
    watched, other = pair.base + "text", pair.base + "blob"
    await pair.session.ask("subscribe", uri=watched)
    since = len(pair.session.events)
    await pair.everywhere("touch", {"uri": other})
    await pair.everywhere("touch", {"uri": watched})
    await pair.session.hear("updated", since, uri=watched)
    expect_equal("what is heard of another resource", pair.session.heard("updated", since, uri=other), [])


async def completes(pair):
    names = await pair.session.complete({"type": "ref/prompt", "name": pair.prefix + "greet"}, "name", "A")
    expect_equal("the names", names, ["Ada", "Alan"])
    ids = await pair.session.complete({"type": "ref/resource", "uri": pair.base + "item/{id}"}, "id", "1")
    expect_equal("the ids", ids, ["1", "10"])


async def logs(pair):
    await expect_logged(pair, "warning", ["warning", "error"])
    await expect_logged(pair, "debug", ["debug", "info", "warning", "error"])


async def expect_logged(pair, level, levels):
    await pair.session.ask("set_level", level=level)
    tag = pair.tag()
    await pair.call("log", {"tag": tag})
    wanted = [(level, f"{tag} {level}") for level in levels]
    for wanted_level, data in wanted:
        await pair.session.hear("log", level=wanted_level, data=data)
    got = [log for log in pair.session.heard("log") if str(log["data"]).startswith(f"{tag} ")]
    got = [(log["level"], log["data"]) for log in got]
    if pair.backend.name.startswith("mcpgo"):
        # It sends a session's notifications on whichever of two streams is free, so their order is not kept.
        got, wanted = sorted(got), sorted(wanted)
    expect_equal(f"what is logged at {level}", got, wanted)


async def changes(pair):
    await pair.matrix.growths[pair.backend.name].seen_by(pair)


async def elicits(pair):
    question = f"What is your name? ({pair.tag()})"
    await pair.session.script(elicitation={"action": "accept", "content": {"name": "Ada"}})
    expect_equal("what the tool got", await pair.said("ask_user", question=question), "accept Ada")
    expect_equal("the questions", len(pair.session.heard("asked", kind="elicitation", question=question)), 1)
    await pair.session.script(elicitation={"action": "decline"})
    expect_equal("what the tool got", await pair.said("ask_user", question=question), "decline")


async def samples(pair):
    question = f"How are you? ({pair.tag()})"
    await pair.session.script(sampling={"model": "test-model", "text": "Fine."})
    expect_equal("what the tool got", await pair.said("ask_model", question=question), "test-model Fine.")
    expect_equal("the questions", len(pair.session.heard("asked", kind="sampling", question=question)), 1)


async def roots(pair):
    expect_equal("what the tool got", await pair.said("ask_roots"), " ".join(ROOTS))


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
