"""Checks that are known not to pass, each with the reason why it cannot."""

from dataclasses import dataclass

import yaml

from .failure import Failed


@dataclass(frozen=True)
class Expectation:
    """`check` is a scenario, or one check of it: `scenario:id`."""

    check: str
    why: str

    def covers(self, check):
        return self.check in (check.scenario, check.entry)


def load(file, gates):
    """What is expected to fail, by gate. Every gate named in the file must be one that may lose checks."""
    expectations = yaml.safe_load(file.read_text()) or {}
    if unknown := sorted(set(expectations) - {gate.name for gate in gates if gate.may_lose}):
        raise Failed(f"{file.name} names what is no gate, or one that may lose nothing: {'; '.join(unknown)}")
    return {name: [Expectation(**entry) for entry in entries] for name, entries in expectations.items()}
