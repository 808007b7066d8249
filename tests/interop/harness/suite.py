"""What a test is, how one is judged, and how the run is told."""

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .failure import Failed
from .process import Process

# No case may take longer than this, unless it says so itself.
CASE_SECONDS = 60.0


@dataclass
class Case:
    """One test. Its name is a sentence of fact; what `check` returns, if anything, is printed beside it."""

    name: str
    check: Callable[[], Awaitable[str | None]]
    seconds: float = CASE_SECONDS


def expect(holds, sentence):
    """Fail with `sentence` unless `holds`."""
    if not holds:
        raise Failed(sentence)


def expect_equal(what, actual, expected):
    """Fail unless `actual` is `expected`."""
    if actual != expected:
        raise Failed(f"{what} is\n    {short(actual)}\nand should be\n    {short(expected)}")


def short(value, limit=2000):
    """`value` as text, cut in the middle where it is very long."""
    text = repr(value)
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} […] {text[-half:]}"


class Tally:
    """Counts results and prints each as it comes."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    async def run(self, case):
        """Run one case. What the processes logged meanwhile is shown beside a failure."""
        Process.mark_everyone()
        if not await self.judge(case):
            say(indent(Process.tails()))

    async def run_lanes(self, lanes, at_once):
        """Run many cases concurrently: those of one lane one after another, and of so many lanes `at_once`."""
        free = asyncio.Semaphore(at_once)

        async def run_lane(lane):
            async with free:
                for case in lane:
                    await self.judge(case)

        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(run_lane(lane))

    async def judge(self, case):
        """Run one case, count it and tell of it. Gives whether it passed."""
        started = time.monotonic()
        try:
            note = await asyncio.wait_for(case.check(), case.seconds)
        except asyncio.CancelledError:
            raise
        except Exception as problem:
            self.failed += 1
            say(f"FAIL  {case.name} ({time.monotonic() - started:.2f} s)\n{indent(reason(problem, case))}")
            return False
        self.passed += 1
        say(f"ok    {case.name} ({time.monotonic() - started:.2f} s{'; ' + note if note else ''})")
        return True

    def summary(self):
        """The last line of a run."""
        return f"{self.passed} passed, {self.failed} failed"


def reason(problem, case):
    """Why a case failed: its own sentence, or where an unexpected exception came from."""
    if isinstance(problem, Failed):
        return str(problem)
    if isinstance(problem, TimeoutError) and not str(problem):
        return f"not done after {case.seconds:.0f} s\n" + "".join(traceback.format_exception(problem))
    return "".join(traceback.format_exception(problem))


def say(line):
    """Print one line at once."""
    print(line, flush=True)


def indent(text):
    """`text` set off from the results."""
    return "\n".join("      " + line for line in text.splitlines())
