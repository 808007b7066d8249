"""`python -m harness --cache DIR --logs DIR (--direct | --binary PATH) [--only WORDS]`."""

import argparse
import signal
import sys
import time
from pathlib import Path

from . import expectations, gates
from .failure import Failed
from .paths import Paths
from .process import Process
from .report import Tally, say, tails
from .world import World


def arguments():
    parser = argparse.ArgumentParser(prog="run")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--only", default="", help="run only the gates whose name contains this")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--direct", action="store_true", help="no gateway: straight to the fixture")
    way.add_argument("--binary", type=Path, help="the toolgate binary")
    return parser.parse_args()


def run(args):
    """The whole run. Gives the exit code."""
    paths = Paths(args.cache, args.logs)
    expected = {} if args.direct else expectations.load(paths.expected_failures, gates.through())
    tally = Tally(expected)
    world = World(paths, args.binary)
    started = time.monotonic()
    try:
        for gate in gates.direct() if args.direct else gates.through():
            if args.only in gate.name:
                tally.run(gate, world)
        tally.end(world)
    except Exception:
        say(tails())
        raise
    finally:
        Process.stop_everyone()
    say(f"logs: {paths.logs}; {time.monotonic() - started:.0f} s")
    say(tally.summary())
    return 1 if tally.failed or not tally.passed else 0


def interrupted(number, frame):
    sys.exit(128 + number)


signal.signal(signal.SIGTERM, interrupted)
signal.signal(signal.SIGINT, interrupted)
try:
    sys.exit(run(arguments()))
except Failed as failed:
    sys.exit(f"conformance: {failed}")
