"""Toolgate itself: its configuration, its life, its admin listener."""

import json
import urllib.error
import urllib.request

import yaml

from .failure import Failed
from .process import Process
from .waiting import eventually, free_port

READY_SECONDS = 20.0
CATALOG_SECONDS = 20.0
# No proxy of the environment may stand between.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Gateway:
    """One gateway process in front of `backends`, a list of sections of its configuration."""

    def __init__(self, binary, logs, backends, name="gateway", **sections):
        self.name = name
        self.port = free_port()
        self.admin_port = free_port()
        self.url = f"http://localhost:{self.port}/mcp"
        file = logs / f"{name}.yaml"
        file.write_text(yaml.safe_dump(self.configuration(backends) | sections, sort_keys=False))
        self.process = Process(name, [binary, "run", "--config", file], logs)

    def configuration(self, backends):
        return {
            "listeners": [{"address": f"127.0.0.1:{self.port}"}],
            "admin": {"address": f"127.0.0.1:{self.admin_port}"},
            "backends": backends,
            "drain": {"delay": "0s", "timeout": "5s"},
        }

    def start(self, tools=()):
        """Start it, wait until it is ready, and until its catalog holds `tools`."""
        self.process.start()
        eventually(f"{self.name} is ready", lambda: self.answers("/readyz"), READY_SECONDS)
        self.lists(set(tools))
        return self

    def lists(self, tools):
        """Wait until the catalog holds every name of `tools`."""

        def missing():
            return tools - texts(json.loads(self.answers("/catalog") or "null"))

        try:
            eventually(f"the catalog of {self.name} holds {len(tools)} tools", lambda: not missing(), CATALOG_SECONDS)
        except Failed as failed:
            raise Failed(f"{failed}; missing: {', '.join(sorted(missing()))}") from None

    def answers(self, path):
        """What stands at an admin path, once that is 200; else None."""
        self.process.expect_alive()
        try:
            with OPENER.open(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as answer:
                return answer.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def stop(self):
        """End it, and fail when it did not end as it should."""
        code = self.process.stop()
        if code != 0:
            how = "had to be killed" if code is None else f"ended with {code}"
            raise Failed(f"{self.name} {how}:\n{self.process.tail()}")


def texts(value):
    """Every string in a JSON value, keys included: the catalog's shape is not this suite's business."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set(value) | set().union(*map(texts, value.values()))
    if isinstance(value, list):
        return set().union(*map(texts, value))
    return set()
