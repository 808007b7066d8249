"""Toolgate itself: its configuration, its life, its admin listener."""

import base64
import os
import signal
import ssl

import httpx
import yaml

from .failure import Failed
from .process import Process
from .suite import short
from .waiting import eventually, free_port

READY_SECONDS = 20.0
CATALOG_SECONDS = 30.0


class Gateway:
    """One gateway process in front of `backends`. `**sections` are put into its configuration as they are."""

    def __init__(self, binary, paths, backends, name="gateway", **sections):
        self.name = name
        self.backends = backends
        self.port = free_port()
        self.admin_port = free_port()
        self.url = f"https://localhost:{self.port}/mcp"
        self.folder = paths.logs / name
        self.folder.mkdir()
        self.file = self.folder / "toolgate.yaml"
        self.config = self.configuration(paths, sections)
        self.process = Process(name, [binary, "run", "--config", self.file], paths.logs)
        self.admin = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.admin_port}", timeout=5, trust_env=False)
        self.trust = ssl.create_default_context(cafile=str(paths.ca))

    def configuration(self, paths, sections):
        return {
            "listeners": [
                {
                    "address": f"127.0.0.1:{self.port}",
                    "path": "/mcp",
                    "tls": {
                        "certificates": [{"cert": str(paths.tls / "server.crt"), "key": str(paths.tls / "server.key")}]
                    },
                    "allowed_hosts": ["localhost", "127.0.0.1"],
                }
            ],
            "admin": {"address": f"127.0.0.1:{self.admin_port}"},
            "backends": [{"name": backend.name, **backend.reach} for backend in self.backends],
            "health": {"interval": "1s", "timeout": "900ms", "rise": 1, "fall": 2},
            "catalog": {"refresh": "2s", "stale_for": "10m"},
            "drain": {"delay": "0s", "timeout": "5s"},
            **sections,
        }

    def write(self, config):
        """Put `config` in the place of the file, whole."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(config, sort_keys=False))
        os.replace(fresh, self.file)

    async def start(self, tools=()):
        """Start it, wait until it is ready, and until its catalog holds `tools`."""
        self.write(self.config)
        await self.process.start()
        await eventually(f"{self.name} is ready", self.ready, READY_SECONDS)
        await self.lists(tools)

    async def ready(self):
        """Whether `/readyz` says so."""
        self.process.expect_alive()
        return await self.status("/readyz") == 200

    async def status(self, path):
        """The HTTP status of an admin path, or None when nobody answers."""
        try:
            return (await self.admin.get(path)).status_code
        except httpx.TransportError:
            return None

    async def lists(self, tools):
        """Wait until the catalog on the admin listener holds every name of `tools`."""
        wanted = set(tools)

        async def holds():
            self.process.expect_alive()
            return wanted <= texts((await self.admin.get("/catalog")).json())

        try:
            await eventually(f"the catalog of {self.name} holds {len(wanted)} tools", holds, CATALOG_SECONDS)
        except Failed as failed:
            missing = sorted(wanted - texts((await self.admin.get("/catalog")).json()))
            raise Failed(f"{failed}; missing: {short(missing)}") from None

    async def metrics(self):
        """The text of `/metrics`."""
        answer = await self.admin.get("/metrics")
        answer.raise_for_status()
        return answer.text

    async def reload(self):
        """Have the file read again, by `POST /reload`."""
        (await self.admin.post("/reload")).raise_for_status()

    def terminate(self):
        """Ask it to stop."""
        self.process.signal(signal.SIGTERM)


def texts(value):
    """Every string in a JSON value, keys included: the catalog's shape is not this suite's business."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        return set(value) | set().union(*map(texts, value.values()))
    if isinstance(value, list):
        return set().union(*map(texts, value))
    return set()


def session_keys(folder, name="session.key"):
    """A `sessions` section with a key of its own, in a file in `folder`."""
    file = folder / name
    file.write_text(base64.b64encode(os.urandom(32)).decode())
    file.chmod(0o600)
    return {"sessions": {"keys": [{"file": str(file)}], "idle": "30m"}}
