"""Where things are."""

from pathlib import Path


class Paths:
    """The suite's own folder, the cache with what `run` installed, and the folders of this one run."""

    def __init__(self, cache, logs, promtool=None):
        self.here = Path(__file__).resolve().parent.parent
        self.cache = cache.resolve()
        self.logs = logs.resolve()
        self.tls = self.logs / "tls"
        self.tls.mkdir()
        self.promtool = promtool
        self.ca = self.tls / "ca.crt"

    def venv(self, name):
        """The Python of one of the virtual environments."""
        return self.cache / f"venv-{name}/bin/python"
