"""Servers that the gateway reaches in another way than at one URL."""

import asyncio
from pathlib import Path

from .backends import Backend, Peer


def backend(kind, paths, suffix=""):
    """The server of a kind."""
    how = {"stdio": Child, "shared": Child, "replicas": Replicas}.get(kind.over, Backend)
    return how(kind, paths, suffix)


class Child(Peer):
    """A server that the gateway runs, over standard input and output. `settings` are more of its configuration."""

    def __init__(self, kind, paths, suffix="", **settings):
        super().__init__(kind, f"backend-{kind.name}{suffix}", paths)
        self.settings = settings

    @property
    def reach(self):
        return {
            "command": [str(part) for part in self.kind.command],
            "env": self.env | dict(self.kind.env),
            "instances": "shared" if self.kind.over == "shared" else "session",
            **self.settings,
        }

    async def start(self):
        """The gateway does that."""

    def pids(self):
        """Its processes, and what they have started, whoever's children they are by now."""
        mark = f"INTEROP_EVENTS={self.events}".encode()
        return {int(folder.name) for folder in Path("/proc").glob("[0-9]*") if mark in environment(folder)}


class Replicas(Peer):
    """Two servers that are one backend."""

    def __init__(self, kind, paths, suffix=""):
        super().__init__(kind, f"backend-{kind.name}{suffix}", paths)
        self.each = [Backend(kind, paths, f"-{number}{suffix}") for number in (1, 2)]

    @property
    def reach(self):
        return {"urls": [replica.url for replica in self.each]}

    async def start(self):
        """Start both."""
        await asyncio.gather(*(replica.start() for replica in self.each))

    def recorded(self):
        """All that either has recorded so far."""
        return [fact for replica in self.each for fact in replica.recorded()]


def environment(folder):
    """The environment of a process; nothing when it has ended."""
    try:
        return (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return ()
