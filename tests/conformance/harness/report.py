"""Judging what the suite has found, and telling it."""

import time

from .failure import Failed
from .gates import told
from .process import Process


class Tally:
    """Runs gates, counts them, and prints each as it comes."""

    def __init__(self, expectations):
        self.expectations = expectations
        self.passed = 0
        self.failed = 0

    def run(self, gate, world):
        """Run one gate. It is open when nothing was lost but what was expected, and that was."""
        started = time.monotonic()
        try:
            results, reference = gate.run(world)
            problems, notes = judge(results, reference, self.expectations.get(gate.name, []))
            counts = results.counts
        except Failed as failed:
            problems, notes, counts = str(failed).splitlines(), [], "not run to its end"
        self.count(gate.name, problems, notes, f"{counts} ({time.monotonic() - started:.1f} s)")

    def end(self, world):
        """The end of a gateway is a gate too, told of only when it fails."""
        try:
            world.leave()
        except Failed as failed:
            self.count("the gateway ends when it is told to", str(failed).splitlines(), [], "")

    def count(self, name, problems, notes, summary):
        if problems:
            self.failed += 1
        else:
            self.passed += 1
        say(f"{'FAIL' if problems else 'ok  '}  {name}: {summary}")
        for line in [*problems, *notes]:
            say(f"      {line}")

    def summary(self):
        """The last line of a run."""
        return f"{self.passed} passed, {self.failed} failed"


def judge(results, reference, expectations):
    """What is wrong, and what is worth a note, as lines."""
    now = {check.key: check for check in results.checks}
    lost = [now.get(key) or Missing(check) for key, check in reference.passed.items() if key not in results.passed]
    failing = lost + [check for check in results.failed if check.key not in reference.passed]
    unexpected = [check for check in failing if not any(entry.covers(check) for entry in expectations)]
    stale = [entry for entry in expectations if not any(entry.covers(check) for check in failing)]
    problems = [line for check in unexpected for line in f"lost  {told(check)}".splitlines()]
    problems += [f"stale  {entry.check} is expected to fail, and passes" for entry in stale]
    notes = [f"expected  {entry.check} — {entry.why}" for entry in expectations if entry not in stale]
    notes += [f"warning  {told(check)}" for check in results.warnings if check.key not in reference.passed]
    return problems, notes


class Missing:
    """A check that the suite did not come to."""

    def __init__(self, check):
        self.check = check
        self.scenario = check.scenario
        self.entry = check.entry
        self.error = "the suite did not come to it"

    def __str__(self):
        return str(self.check)


def say(line):
    """Print one line at once."""
    print(line, flush=True)


def tails():
    """The last words of every process, for when nothing could be started."""
    return "\n".join(f"--- {process.name}\n{process.tail()}" for process in Process.everyone)
