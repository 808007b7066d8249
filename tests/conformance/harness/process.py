"""Child processes: their output in the log folder, none left behind."""

import contextlib
import os
import signal
import subprocess

from .failure import Failed

STOP_SECONDS = 10.0
TAIL_BYTES = 1500


class Process:
    """One child process, and whatever it starts. What it says goes to `logs/NAME.log`."""

    everyone = []
    # Whether each gets a process group of its own. Without, it is ended with the group of whoever started it.
    grouped = True

    def __init__(self, name, command, logs, env=None):
        self.name = name
        self.command = [str(part) for part in command]
        self.log = logs / f"{name}.log"
        self.env = {**os.environ, **(env or {})}
        self.child = None

    def start(self):
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                start_new_session=Process.grouped,
            )
        Process.everyone.append(self)

    def expect_alive(self):
        """Fail when it has ended by itself."""
        if self.child.poll() is not None:
            raise Failed(f"{self.name} ended with {self.child.returncode}:\n{self.tail()}")

    def finished(self, within):
        """Its exit code, once it has ended by itself; None when it had to be killed."""
        try:
            return self.child.wait(within)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill()

    def stop(self):
        """End it politely, and give its exit code; None when it had to be killed."""
        if self.child.poll() is None:
            self.signal(signal.SIGTERM)
        return self.finished(STOP_SECONDS)

    def kill(self):
        """End it and everything it has started."""
        self.signal(signal.SIGKILL)
        self.child.wait()

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            if Process.grouped:
                os.killpg(self.child.pid, number)
            else:
                self.child.send_signal(number)

    def tail(self):
        """The end of what it has said."""
        return self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip()

    @classmethod
    def stop_everyone(cls):
        """End whatever was ever started, the last first."""
        for process in reversed(cls.everyone):
            process.stop()
