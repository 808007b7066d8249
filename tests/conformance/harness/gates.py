"""The gates: what each one runs, and what it demands."""

import shlex
from dataclasses import dataclass

from client.scenarios import KINDS, SCENARIOS

from . import suite
from .failure import Failed

# How many checks pass without a gateway, by version of the protocol.
PASSES = {"2025-03-26": 3, "2025-06-18": 56, "2025-11-25": 84, "2026-07-28": 152}
MODERN = "2026-07-28"
LEGACY = [version for version in PASSES if version != MODERN]
# By era of the fixture: the versions that it speaks itself, without a gateway.
SPOKEN = {"both": list(PASSES), "legacy": LEGACY, "modern": [MODERN]}


@dataclass(frozen=True)
class ServerGate:
    """The suite's checks of servers. `era` is what the fixture speaks, `version` what the suite speaks."""

    version: str
    era: str

    @property
    def name(self):
        return f"server {self.version}, fixture {self.era}"

    @property
    def may_lose(self):
        """Only where an era is crossed may there be checks that cannot pass."""
        return self.version not in SPOKEN[self.era]

    def run(self, world):
        """What the suite finds, and what passes without a gateway."""
        reference = world.reference(self.version)
        if len(reference.passed) != PASSES[self.version] or reference.failed:
            raise Failed(f"without a gateway: {reference.counts}, and {PASSES[self.version]} should pass")
        folder = world.paths.logs / self.name.replace(", ", "-").replace(" ", "-")
        return suite.check_server(world.paths, world.url(self.era), self.version, folder), reference


@dataclass(frozen=True)
class ClientGate:
    """The suite's checks of clients. The gateway is the suite's client, and `kind` of client is the gateway's."""

    scenario: str
    version: str
    kind: str

    may_lose = True

    @property
    def name(self):
        return f"client {self.scenario} {self.version}, {self.kind} client"

    def run(self, world):
        """What the suite finds, and how our own client fared; there is nothing to compare it with."""
        logs = world.paths.logs / self.name.replace(", ", "-").replace(" ", "-")
        outcome = logs / "outcome"
        command = [world.paths.python, "-m", "client", "--kind", self.kind, "--outcome", outcome, *world.binary_option]
        # The suite has a shell run it; `exec`, so that what the suite ends is our client and not that shell.
        line = " ".join(["exec", *(shlex.quote(str(part)) for part in command)])
        results = suite.check_client(world.paths, line, self.scenario, self.version, logs, {})
        said = outcome.read_text().strip() if outcome.exists() else "it came to no end"
        if said == "done" and not results.passed:
            said = "no check passed"
        if said != "done":
            # One more check, so that it can be expected like any other.
            results.checks.append(suite.Check(self.scenario, "our-client", "OurClient", 1, "FAILURE", said))
        return results, suite.Results([])


def told(check):
    """A check, and what is wrong with it."""
    return f"{check} — {check.error or check.status}"


def direct():
    """Without a gateway: are the fixture, our client and the harness right?"""
    gates = [ServerGate(version, era) for era, versions in SPOKEN.items() for version in versions]
    return gates + [
        ClientGate(name, version, "modern" if version == MODERN else "legacy")
        for name, scenario in SCENARIOS.items()
        for version in scenario.versions
    ]


def through():
    """Through the gateway: first within an era, then across, then with the gateway as a client."""
    servers = [ServerGate(version, era) for era in SPOKEN for version in PASSES]
    clients = [
        ClientGate(name, version, kind)
        for name, scenario in SCENARIOS.items()
        for version in scenario.versions
        for kind in KINDS
    ]
    return servers + clients
