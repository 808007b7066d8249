"""`python -m harness --cache DIR --logs DIR (--direct | --binary PATH) [--promtool PATH] [--only WORDS]`."""

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path

from . import cases
from .paths import Paths
from .process import Process
from .suite import Tally, say
from .world import World


def arguments():
    parser = argparse.ArgumentParser(prog="run")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--promtool", type=Path)
    parser.add_argument("--only", default="", help="run only the tests whose name contains this")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--direct", action="store_true", help="clients straight to backends, without a gateway")
    way.add_argument("--binary", type=Path, help="the toolgate binary")
    return parser.parse_args()


async def run(args):
    """The whole run. Gives the exit code."""
    paths = Paths(args.cache, args.logs, args.promtool)
    world = World(paths, None if args.direct else args.binary.resolve())
    tally = Tally()
    started = time.monotonic()
    try:
        one_by_one = [
            case
            for module in (cases.DIRECT if args.direct else cases.THROUGH)
            for case in module.cases(world)
            if args.only in case.name
        ]
        if one_by_one:
            await world.start()
            say(f"everything is up after {time.monotonic() - started:.1f} s")
        for case in one_by_one:
            await tally.run(case)
        await run_matrix(world, tally, args.only)
    except Exception as problem:
        # Without its servers no test can be judged: tell why, and count it.
        tally.failed += 1
        say(f"FAIL  everything starts: {problem}\n{Process.tails()}")
    finally:
        await Process.stop_everyone()
    say(f"logs: {paths.logs}; {time.monotonic() - started:.0f} s")
    say(tally.summary())
    return 1 if tally.failed or not tally.passed else 0


async def run_matrix(world, tally, only):
    """The matrix, which brings servers and a gateway of its own."""
    matrix = cases.matrix.Matrix(world)
    lanes = [[case for case in lane if only in case.name] for lane in matrix.lanes()]
    if any(lanes):
        await matrix.start()
        await tally.run_lanes(lanes, cases.matrix.LANES_AT_ONCE)


async def main():
    task = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await run(arguments())


with contextlib.suppress(asyncio.CancelledError):
    sys.exit(asyncio.run(main()))
sys.exit(130)
