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
    env: tuple = ()

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


class Backend:
    """One running server."""

    def __init__(self, kind, paths, suffix=""):
        self.kind = kind
        self.name = kind.name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.prefix = f"{self.name}__"
        self.events = Path(paths.logs / f"backend-{self.name}{suffix}.events.jsonl")
        self.events.touch()

        def fill(text):
            return str(text).replace("{port}", str(self.port))

        self.process = Process(
            f"backend-{self.name}{suffix}",
            [fill(part) for part in kind.command],
            paths.logs,
            env={
                "INTEROP_EVENTS": str(self.events),
                "PYTHONDONTWRITEBYTECODE": "1",
                **{key: fill(value) for key, value in kind.env},
            },
        )

    async def start(self):
        """Start it, and wait until it accepts connections."""
        await self.process.start()
        await listening(self.port, self.process)

    async def restart(self):
        """Start it again on its port, whether it is dead already or not."""
        if self.process.alive:
            await self.process.kill()
        await self.start()

    async def saw(self, event, tag, within):
        """Wait until the server has recorded `event` of the call that carries `tag`."""
        fact = {"event": event, "tag": tag}
        await eventually(f"{self.name} records {fact}", lambda: fact in self.recorded(), within)

    def recorded(self):
        """All it has recorded so far."""
        return [json.loads(line) for line in self.events.read_text().splitlines()]
