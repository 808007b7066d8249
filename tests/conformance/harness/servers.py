"""The MCP servers behind the gateway."""

import sys

from .process import Process
from .waiting import free_port, listening


class Server:
    """One running server, at `url`."""

    def __init__(self, name, logs, command, env=None, host="127.0.0.1"):
        self.name = name
        self.port = free_port()
        self.url = f"http://{host}:{self.port}/mcp"
        filled = {key: value.format(port=self.port) for key, value in (env or {}).items()}
        self.process = Process(name, [str(part).format(port=self.port) for part in command], logs, filled)

    def start(self):
        self.process.start()
        listening(self.port, self.process)
        return self


def fixture(era, logs):
    """This suite's own server, which has everything the official suite asks for."""
    command = [sys.executable, "-m", "fixture", "--port", "{port}", "--era", era]
    # The official suite wants to be told of a server by the name `localhost`.
    return Server(f"fixture-{era}", logs, command, host="localhost")


def everything(paths, logs, name):
    """A second server, whose names must not get in the way of the first one's."""
    script = paths.node_packages / "@modelcontextprotocol/server-everything/dist/index.js"
    return Server(name, logs, [paths.node, script, "streamableHttp"], {"PORT": "{port}"})
