"""Running the official suite, and reading what it has found."""

import collections
import json
import re
from dataclasses import dataclass

from .process import Process

# The suite has bounds of its own for each scenario; this one is for all together.
SERVER_SECONDS = 600.0
CLIENT_SECONDS = 60.0
# Names of result folders: `server-` for servers, the scenario, when it ran.
FOLDER = re.compile(r"(?:server-)?(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z?")


@dataclass(frozen=True)
class Check:
    """One check of one scenario. Those with one id are told apart by their names, then by their order."""

    scenario: str
    id: str
    name: str
    nth: int
    status: str
    error: str

    @property
    def key(self):
        return (self.scenario, self.id, self.name, self.nth)

    @property
    def entry(self):
        """How a list of expected failures names it."""
        return f"{self.scenario}:{self.id}"

    def __str__(self):
        nth = f" #{self.nth}" if self.nth > 1 else ""
        return f"{self.entry} ({self.name}{nth})"


@dataclass(frozen=True)
class Results:
    """All checks of one run of the suite."""

    checks: list

    def of(self, status):
        return [check for check in self.checks if check.status == status]

    @property
    def passed(self):
        return {check.key: check for check in self.of("SUCCESS")}

    @property
    def failed(self):
        return self.of("FAILURE")

    @property
    def warnings(self):
        return self.of("WARNING")

    @property
    def counts(self):
        return f"{len(self.passed)} passed, {len(self.failed)} failed"


def check_server(paths, url, version, folder):
    """What the suite finds about the server at `url`."""
    run(paths, folder, SERVER_SECONDS, "server", "--url", url, "--suite", "all", "--spec-version", version)
    return read(folder)


def check_client(paths, command, scenario, version, folder, env):
    """What the suite finds about the client that `command` runs, and what it said itself."""
    options = ["--scenario", scenario, "--spec-version", version, "--timeout", str(int(CLIENT_SECONDS * 1000))]
    run(paths, folder, 2 * CLIENT_SECONDS, "client", "--command", command, *options, env=env)
    return read(folder)


def run(paths, folder, seconds, *arguments, env=None):
    """Run the suite to its end. Its exit code says no more than the checks, so it is not looked at."""
    folder.mkdir(parents=True)
    process = Process("suite", [paths.node, paths.suite, *arguments, "-o", folder], folder, env)
    process.start()
    process.finished(seconds)


def read(folder):
    """The checks in `folder`, in the order of scenarios. One that did not come to its end has none."""
    checks = []
    for file in sorted(folder.glob("*/checks.json")):
        match = FOLDER.fullmatch(file.parent.name)
        seen = collections.Counter()
        for found in json.loads(file.read_text()):
            name = found.get("name", "")
            seen[found["id"], name] += 1
            error = found.get("errorMessage") or ""
            nth = seen[found["id"], name]
            checks.append(Check(match["scenario"], found["id"], name, nth, found["status"], error))
    return Results(checks)
