"""Child processes: each in a process group of its own, its output in the log folder, none left behind."""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE

from .failure import Failed

STOP_SECONDS = 5.0
TAIL_BYTES = 1500


class Process:
    """One child process. Its stderr goes to `logs/NAME.log`, and so does its stdout unless it is `piped`."""

    everyone = []

    def __init__(self, name, command, logs, env=None, piped=False):
        self.name = name
        self.command = [str(part) for part in command]
        self.log = logs / f"{name}.log"
        self.env = {**os.environ, **(env or {})}
        self.piped = piped
        self.child = None
        self.marked = 0

    async def start(self):
        """Start it; a process that was stopped can be started again, and its log goes on."""
        assert not self.alive, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self.child = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=PIPE if self.piped else DEVNULL,
                stdout=PIPE if self.piped else log,
                stderr=log,
                env=self.env,
                start_new_session=True,
                limit=64 * 1024 * 1024,
            )
        Process.everyone.append(self)

    @property
    def alive(self):
        return self.child is not None and self.child.returncode is None

    def expect_alive(self):
        """Fail when it has died by itself."""
        if not self.alive:
            raise Failed(f"{self.name} ended with {self.child.returncode}:\n{self.tail()}")

    def signal(self, number):
        """Send a signal to its whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, number)

    async def exited(self, within):
        """Its exit code, once it has ended by itself."""
        try:
            return await asyncio.wait_for(self.child.wait(), within)
        except TimeoutError:
            raise Failed(f"{self.name} has not ended within {within:g} s") from None

    async def kill(self):
        """End it without a chance to say goodbye."""
        self.signal(signal.SIGKILL)
        await self.child.wait()

    async def stop(self):
        """End it politely, then for certain."""
        if self.alive:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.child.wait(), STOP_SECONDS)
        await self.kill()

    def mark(self):
        """Remember how long its log is now, for `tail`."""
        self.marked = self.log.stat().st_size

    def tail(self):
        """The end of what it has logged since `mark`."""
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[self.marked :][-TAIL_BYTES:].decode(errors="replace").strip()

    @classmethod
    def mark_everyone(cls):
        """Remember how long every log is now."""
        for process in cls.everyone:
            process.mark()

    @classmethod
    def tails(cls):
        """What every process has logged since it was marked, where there is something."""
        tails = {process.name: process.tail() for process in sorted(cls.everyone, key=cls.is_peer)}
        return "\n".join(f"--- {name}\n{tail}" for name, tail in tails.items() if tail)

    def is_peer(self):
        """Whether it is not a gateway: gateways are told of first."""
        return not self.name.startswith("gateway")

    @classmethod
    async def stop_everyone(cls):
        """End whatever was ever started."""
        await asyncio.gather(*(process.stop() for process in dict.fromkeys(cls.everyone)))
