"""`python -m client --kind legacy|modern --outcome FILE [--binary PATH] URL`, run by the official suite.

The suite has started a server at URL, and looks at what reaches it. With a binary that comes from Toolgate, whose
only backend the server is: what it asks by itself, to learn the server's era and its tools, plays the client's role
as much as what it passes on for the SDK's client. The scenario's name and its data are in the environment.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from pydantic import ValidationError

from harness.failure import Failed
from harness.gateway import Gateway
from harness.process import Process
from harness.world import CALM

from .scenarios import KINDS, MODERN, SCENARIOS
from .session import connect

# The suite gives up after 60 s; this must be over before, and have ended its gateway.
SECONDS = 40.0


def arguments():
    parser = argparse.ArgumentParser(prog="client")
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--outcome", type=Path, required=True)
    parser.add_argument("--binary", type=Path)
    parser.add_argument("url")
    return parser.parse_args()


async def drive(scenario, url, kind, data):
    """Do what the scenario wants, in one session.

    One of the suite's servers leaves out the type of a result, to see whether a client takes it for complete. This SDK's
    modern client does not; what a server leaves out, the gateway leaves out too.
    """
    try:
        async with asyncio.timeout(SECONDS), connect(url, kind) as session:
            await scenario.play(session, data)
    except* ValidationError as problems:
        if kind != "modern" or "resultType" not in str(innermost(problems)):
            raise


def run(args):
    """The scenario, with or without a gateway between."""
    scenario = SCENARIOS[os.environ["MCP_CONFORMANCE_SCENARIO"]]
    data = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "null"))
    if args.binary is None:
        asyncio.run(drive(scenario, args.url, args.kind, data))
        return
    backend = {"name": "mock", "url": args.url, "prefix": ""}
    if args.kind == "legacy" and os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"] == MODERN:
        # For a legacy client's sake the gateway would try `initialize`, once; the suite looks at modern requests, and at each.
        backend["protocol"] = "modern"
    # Extra probes and listings would only blur what the suite sees: it looks at each request.
    gateway = Gateway(args.binary, args.outcome.parent, [backend], **CALM)
    gateway.start(scenario.tools)
    asyncio.run(drive(scenario, gateway.url, args.kind, data))
    gateway.stop()


def main():
    args = arguments()
    # Who ends the suite ends us, and the gateway with us.
    Process.grouped = False
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    outcome = "ended from outside"
    try:
        run(args)
        outcome = "done"
    except Exception as problem:
        traceback.print_exc()
        cause = innermost(problem)
        outcome = str(cause) if isinstance(cause, Failed) else f"our client failed: {cause!r}"
    finally:
        Process.stop_everyone()
        args.outcome.write_text(outcome)
    return 0 if outcome == "done" else 1


def innermost(problem):
    """The exception itself, where the SDK's task groups have wrapped it."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return problem


sys.exit(main())
