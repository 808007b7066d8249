"""What runs during a test run: fixtures, gateways, and what the suite finds without them."""

from fixture.tools import TOOLS

from . import servers, suite
from .failure import Failed
from .gateway import Gateway

EVERYTHING_PREFIX = "everything__"
# Nothing but what the suite sends should reach a server between two checks.
CALM = {"health": {"interval": "1h"}, "catalog": {"refresh": "1h"}}


class World:
    """Servers are started when first wanted; a gateway lives as long as gates of its era follow each other."""

    def __init__(self, paths, binary=None):
        self.paths = paths
        self.binary = binary
        self.fixtures = {}
        self.references = {}
        self.gateway = None
        self.era = None
        self.reason = None

    @property
    def binary_option(self):
        """What tells our client to put a gateway between, or not to."""
        return ["--binary", self.binary] if self.binary else []

    def fixture(self, era):
        if era not in self.fixtures:
            self.fixtures[era] = servers.fixture(era, self.paths.logs).start()
        return self.fixtures[era]

    def reference(self, version):
        """What the suite finds about the fixture of both eras, without a gateway."""
        if version not in self.references:
            folder = self.paths.logs / f"direct-{version}"
            self.references[version] = suite.check_server(self.paths, self.fixture("both").url, version, folder)
        return self.references[version]

    def url(self, era):
        """Where the suite finds the fixture of this era."""
        if self.binary is None:
            return self.fixture(era).url
        if era != self.era:
            self.leave()
            self.era = era
            self.enter()
        if self.reason:
            raise Failed(self.reason)
        return self.gateway.url

    def enter(self):
        """Put a gateway before the fixture of this era, and a second server beside it."""
        everything = servers.everything(self.paths, self.paths.logs, f"everything-{self.era}").start()
        backends = [
            {"name": "fixture", "url": self.fixture(self.era).url, "prefix": ""},
            {"name": "everything", "url": everything.url},
        ]
        self.gateway = Gateway(self.binary, self.paths.logs, backends, f"gateway-{self.era}", **CALM)
        try:
            self.gateway.start([*TOOLS, f"{EVERYTHING_PREFIX}echo"])
        except Failed as failed:
            self.reason = str(failed)

    def leave(self):
        """End the gateway, if there is one. Fails when it does not end as it should."""
        gateway, self.gateway, self.era, self.reason = self.gateway, None, None, None
        if gateway:
            gateway.stop()
