"""The real MCP servers behind the gateway."""

import json
from dataclasses import dataclass
from pathlib import Path

from .eras import LEGACY, MODERN
from .process import Process
from .waiting import eventually, free_port, listening

MANY = 2500
# Quotes, escapes, several scripts and a character outside the basic plane: whoever re-encodes shows here.
MESSAGE = 'grüße "\\u0041" \\ </script> 世界 👋\n\ttab'


@dataclass(frozen=True)
class Kind:
    """What one server is, and what can be asked of it."""

    name: str
    command: list
    # Calls whose answers must be the same through the gateway as without it.
    samples: tuple
    # A call that reports progress 1, 2, …, `steps`, or None.
    progress: tuple | None = None
    steps: int = 5
    # Whether it has the tools of this suite (echo, add, slow, progress, fail, long) and writes the side file.
    ours: bool = True
    # What it speaks.
    eras: tuple = (LEGACY,)
    # How many tools it lists, where that is what it is there for.
    count: int | None = None
    # Whether it mixes up its clients: mcp-go without sessions has one queue of notifications and one set of ids.
    mixes_up: bool = False
    # Whether it may swallow a notification: what forwards those of a request takes one more off the session's queue while it
    # ends, and drops it, even if it belongs to the next request (mcp-go, server/streamable_http.go, without an event store).
    swallows: bool = False
    env: tuple = ()
    # How the gateway reaches it: at a URL over "http" or "sse", as a process that it runs for each session ("stdio") or for
    # all ("shared"), or at two URLs, as "replicas".
    over: str = "http"
    # The only clients that it meets in the matrix; without any, all.
    clients: tuple = ()

    @property
    def modern(self):
        """Whether a client in mode auto ends in the modern era with it."""
        return MODERN in self.eras


BOTH = (LEGACY, MODERN)
OUR_SAMPLES = (
    ("echo", {"message": MESSAGE}),
    ("add", {"a": 19, "b": 23}),
    ("fail", {}),
)
OUR_PROGRESS = ("progress", {"steps": 5, "interval_ms": 40})
# Those that meet what a process is run for, which takes long to start: each SDK, and both eras.
FEW_CLIENTS = ("py2-legacy", "node-legacy", "py2-modern", "rmcp-modern")
# Each SDK in both eras.
OTHER_CLIENTS = ("py2-legacy", "py2-modern", "node-legacy", "node-modern", "rmcp-legacy", "rmcp-modern")
EVERYTHING_SAMPLES = (
    ("echo", {"message": MESSAGE}),
    ("get-sum", {"a": 19, "b": 23}),
    ("get-tiny-image", {}),
    ("get-annotated-message", {"messageType": "error", "includeImage": True}),
    ("get-structured-content", {"location": "Chicago"}),
    ("get-resource-links", {"count": 3}),
)


def kinds(paths):
    """Every server of the suite, in the order of the gateway's configuration. `{port}` stands for the port."""
    python1, python2 = paths.venv("mcp-v1"), paths.venv("mcp-v2")
    mcpgo, gosdk = paths.cache / "bin/mcpgo", paths.cache / "bin/gosdk"
    everything = paths.cache / "node/node_modules/.bin/mcp-server-everything"
    return [
        Kind(
            "every",
            [everything, "streamableHttp"],
            EVERYTHING_SAMPLES,
            progress=("trigger-long-running-operation", {"duration": 0.2, "steps": 5}),
            ours=False,
            env=(("PORT", "{port}"),),
        ),
        Kind("py1", [python1, paths.here / "servers/mcp_v1.py", "{port}", "py1"], OUR_SAMPLES, OUR_PROGRESS),
        Kind("py2", [python2, paths.here / "servers/mcp_v2.py", "{port}", "py2"], OUR_SAMPLES, OUR_PROGRESS, eras=BOTH),
        *(
            Kind(
                f"mcpgo-{mode}",
                [mcpgo, "-port", "{port}", "-mode", mode, "-name", f"mcpgo-{mode}"],
                OUR_SAMPLES,
                OUR_PROGRESS,
                eras=BOTH,
                mixes_up=mode == "stateless",
                swallows=True,
            )
            for mode in ("stateless", "default", "stateful")
        ),
        Kind("gosdk", [gosdk, "-port", "{port}"], OUR_SAMPLES, OUR_PROGRESS),
        Kind(
            "many",
            [gosdk, "-port", "{port}", "-extra", str(MANY)],
            (("tool_0001", {"message": "first page"}), (f"tool_{MANY}", {"message": "last page"})),
            ours=False,
            count=MANY,
        ),
    ]


def matrix_kinds(paths):
    """The servers of the matrix: those without the one that is there for its long list, and some that a gateway which
    serves legacy versions only could not list."""
    python2, gosdk = paths.venv("mcp-v2"), paths.cache / "bin/gosdk"
    modern = [python2, paths.here / "servers/mcp_v2.py", "{port}", "modern", "modern-only"]
    stateless = [gosdk, "-port", "{port}", "-stateless", "-name", "gosdk-stateless"]
    return [
        *(kind for kind in kinds(paths) if kind.count is None),
        Kind("modern", modern, OUR_SAMPLES, OUR_PROGRESS, eras=(MODERN,)),
        Kind("gosdk-stateless", stateless, OUR_SAMPLES, OUR_PROGRESS, eras=BOTH),
    ]


def other_kinds(paths):
    """The servers that are reached over something else than HTTP at one URL: only through the gateway."""
    python1, python2 = paths.venv("mcp-v1"), paths.venv("mcp-v2")
    everything = paths.cache / "node/node_modules/.bin/mcp-server-everything"

    def ours(name, over, command, eras=(LEGACY,)):
        clients = FEW_CLIENTS if over == "stdio" else OTHER_CLIENTS
        return Kind(name, command, OUR_SAMPLES, OUR_PROGRESS, eras=eras, over=over, clients=clients)

    def every(name, over, mode, *env):
        return Kind(name, [everything, mode], EVERYTHING_SAMPLES, ours=False, env=env, over=over, clients=OTHER_CLIENTS)

    def v1(name, over, where, *more):
        return ours(name, over, [python1, paths.here / "servers/mcp_v1.py", where, name, *more])

    def v2(name, over):
        return ours(name, over, [python2, paths.here / "servers/mcp_v2.py", "stdio", name], BOTH)

    return [
        every("every-stdio", "stdio", "stdio"),
        v1("py1-stdio", "stdio", "stdio"),
        v1("py1-shared", "shared", "stdio"),
        v2("py2-stdio", "stdio"),
        v2("py2-shared", "shared"),
        ours("gosdk-stdio", "stdio", [paths.cache / "bin/gosdk", "-stdio", "-name", "gosdk-stdio"], BOTH),
        every("every-sse", "sse", "sse", ("PORT", "{port}")),
        v1("py1-sse", "sse", "{port}", "sse"),
        v1("py1-replicas", "replicas", "{port}"),
    ]


class Peer:
    """A server as the tests see it, however it is reached."""

    def __init__(self, kind, label, paths):
        self.kind = kind
        self.name = kind.name
        self.prefix = f"{self.name}__"
        self.events = Path(paths.logs / f"{label}.events.jsonl")
        self.events.touch()
        self.env = {"INTEROP_EVENTS": str(self.events), "PYTHONDONTWRITEBYTECODE": "1"}

    async def saw(self, event, tag, within):
        """Wait until the server has recorded `event` of the call that carries `tag`."""
        fact = {"event": event, "tag": tag}
        await eventually(f"{self.name} records {fact}", lambda: fact in self.recorded(), within)

    def recorded(self):
        """All it has recorded so far."""
        return [json.loads(line) for line in self.events.read_text().splitlines()]


class Backend(Peer):
    """One running server."""

    def __init__(self, kind, paths, suffix=""):
        label = f"backend-{kind.name}{suffix}"
        super().__init__(kind, label, paths)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/{'sse' if kind.over == 'sse' else 'mcp'}"

        def fill(text):
            return str(text).replace("{port}", str(self.port))

        self.process = Process(
            label,
            [fill(part) for part in kind.command],
            paths.logs,
            env=self.env | {key: fill(value) for key, value in kind.env},
        )

    @property
    def reach(self):
        """How the gateway's configuration tells where it is."""
        return {"url": self.url} | ({"transport": "sse"} if self.kind.over == "sse" else {})

    async def start(self):
        """Start it, and wait until it accepts connections."""
        await self.process.start()
        await listening(self.port, self.process)

    async def restart(self):
        """Start it again on its port, whether it is dead already or not."""
        if self.process.alive:
            await self.process.kill()
        await self.start()
