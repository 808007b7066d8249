"""`/metrics` after all that went before."""

import asyncio
import re
from functools import partial

from ..failure import Failed
from ..suite import Case, expect, expect_equal

TOOL_CALLS = "toolgate_tool_calls_total"
# A tool that no test calls where the call might not reach its backend.
COUNTED = "add"
SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def cases(world):
    yield Case("promtool finds nothing wrong with /metrics", partial(is_clean, world))
    yield Case(f"{TOOL_CALLS} counts the calls of each tool of each backend", partial(adds_up, world))


async def is_clean(world):
    promtool = await asyncio.create_subprocess_exec(
        world.paths.promtool,
        "check",
        "metrics",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await promtool.communicate((await world.gateway.metrics()).encode())
    if promtool.returncode != 0 or said.strip():
        raise Failed(f"promtool gives {promtool.returncode}:\n{said.decode()}")


async def adds_up(world):
    series = [(labels, value) for name, labels, value in parse(await world.gateway.metrics()) if name == TOOL_CALLS]
    expect(series, f"there is no {TOOL_CALLS}")
    for backend in world.ours:
        public = backend.prefix + COUNTED
        counted = sum(value for labels, value in series if is_of(labels, backend.name, (COUNTED, public)))
        expect_equal(f"the calls of {public}", counted, world.calls_through[public])
    return f"{len(series)} series"


def is_of(labels, backend, tools):
    """Whether a series is about one of `tools` of `backend`."""
    return labels.get("backend") == backend and labels.get("tool") in tools


def parse(text):
    """Name, labels and value of each sample of the text format."""
    for line in text.splitlines():
        if line and not line.startswith("#"):
            sample = SAMPLE.match(line)
            expect(sample, f"not a sample: {line!r}")
            yield sample["name"], dict(LABEL.findall(sample["labels"] or "")), float(sample["value"])
