"""What cannot work, why, and what the client gets instead."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ...eras import LEGACY, MODERN
from ...failure import Failed

# How long to wait for an event that should not come.
IMPOSSIBLE_SECONDS = 1.0
# Where a cell is impossible.
DIRECTLY, THROUGH = "directly", "through"


@dataclass(frozen=True)
class Impossible:
    """Cells that cannot work. `clients`, `backends` and `rows` are patterns as of a shell, with commas between."""

    clients: str
    backends: str
    rows: str
    why: str
    # What the failed check must say, as a regular expression.
    gets: str
    # The era of the session that it holds in, if not in both.
    era: str | None = None
    where: tuple = (DIRECTLY, THROUGH)
    # Whether it may work after all, as luck has it.
    by_luck: bool = False

    def covers(self, pair, row):
        """Whether it is about this cell."""
        return (
            matches(pair.client.kind.name, self.clients)
            and matches(pair.backend.name, self.backends)
            and matches(row, self.rows)
            and self.era in (None, pair.era)
            and (DIRECTLY if pair.is_direct else THROUGH) in self.where
        )

    def judge(self, failed):
        """Whether the client got what it must; gives a note for the result."""
        if not re.search(self.gets, str(failed), re.DOTALL):
            raise Failed(f"it cannot work ({self.why}), but the client should get /{self.gets}/, and got:\n{failed}")
        return f"impossible: {self.why}"


def matches(name, patterns):
    return any(fnmatchcase(name, pattern.strip()) for pattern in patterns.split(","))


STATELESS = "go-sdk without sessions "
EVERYTHING = "server-everything "
IMPOSSIBLE = [
    Impossible(
        *("rmcp-auto", "gosdk", "*"),
        why="rmcp gives up where the answer to its discovery names legacy versions only",
        gets="no compatible protocol version",
        where=(DIRECTLY,),
    ),
    Impossible(
        *("rmcp-legacy", "gosdk", "list_changed"),
        why="rmcp proposes 2026-07-28 in its handshake, and go-sdk then waits for it to listen",
        gets="no event tools_changed",
        where=(DIRECTLY,),
    ),
    Impossible(
        *("*", "mcpgo-*", "list_changed"),
        why="mcp-go acknowledges a subscription to changed lists, and sends nothing",
        gets="no event tools_changed",
        era=MODERN,
        where=(DIRECTLY,),
    ),
    Impossible(
        *("*", "gosdk-stateless", "cancel"),
        why=STATELESS + "does not relate a notification to a call of before",
        gets="not within .* records .*cancelled",
        era=LEGACY,
        where=(DIRECTLY,),
    ),
    Impossible(
        *("*", "gosdk-stateless", "subscribe"),
        why=STATELESS + "has no stream to tell a legacy client on",
        gets="no event updated",
        era=LEGACY,
        where=(DIRECTLY,),
    ),
    Impossible(
        *("*", "gosdk-stateless", "list_changed"),
        why=STATELESS + "has no stream to tell a legacy client on",
        gets="no event tools_changed",
        era=LEGACY,
        where=(DIRECTLY,),
    ),
    Impossible(
        *("*", "gosdk-stateless", "logging"),
        why=STATELESS + "does not keep a legacy client's level",
        gets="what is logged at warning is.*'info'",
        era=LEGACY,
        where=(DIRECTLY,),
    ),
    Impossible(
        *("*", "gosdk-stateless", "elicitation"),
        why=STATELESS + "does not know a legacy client's capabilities",
        gets="client does not support elicitation",
        era=LEGACY,
        where=(DIRECTLY,),
    ),
    Impossible(
        *("*", "gosdk-stateless", "sampling, roots"),
        why=STATELESS + "cannot ask a legacy client",
        gets="stateless servers cannot make requests",
        era=LEGACY,
        where=(DIRECTLY,),
    ),
    Impossible(
        *("*", "every", "logging"),
        why=EVERYTHING + "logs outside of calls, and a modern client hears it only if a call in the same session is under way",
        gets="no event log",
        era=MODERN,
        where=(THROUGH,),
        by_luck=True,
    ),
    Impossible(
        *("*", "every, every-sse", "subscribe"),
        why=EVERYTHING + "switches updates on for the session of the call, and a modern client has none",
        gets="no event updated",
        era=MODERN,
        where=(THROUGH,),
    ),
    Impossible(
        *("*", "every*", "list_changed"),
        why=EVERYTHING + "adds a resource to the session of the call only, and the gateway's list has what all sessions have",
        gets="no event resources_changed",
        where=(THROUGH,),
    ),
    Impossible(
        *("*", "every-stdio, py1-stdio", "subscribe"),
        why="a modern client's subscription has a session of its own, and so a process, in which nothing is touched",
        gets="no event updated",
        era=MODERN,
        where=(THROUGH,),
    ),
    Impossible(
        *("*", "py1-stdio", "list_changed"),
        why="each session has a process, which grows alone, and the gateway lists what is in one of its own",
        gets="no event tools_changed",
        where=(THROUGH,),
    ),
]


def instead(pair, row):
    """The entry about a cell, or None where it must work."""
    return next((entry for entry in IMPOSSIBLE if entry.covers(pair, row)), None)
