"""Runs what deploy/compose.yaml runs, without containers: the same two MCP servers, and the gateway with the same configuration.

    compose.py TOOLGATE CACHE FOLDER

Of Prometheus and Grafana it looks at what they are given. Versions are those of the file; what it needs is installed into CACHE.
"""

import json
import re
import shlex
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import yaml

from monitoring import eventually, fetch, free_port, start

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
VERSION = "2025-11-25"


def main():
    toolgate, cache, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    check(compose)
    everything, clock, public, admin = (free_port() for _ in range(4))
    running = []
    try:
        running.append(start_everything(services["everything"], cache, everything, folder))
        running.append(start_clock(services["clock"], cache, clock, folder))
        configuration = (DEPLOY / "compose" / "toolgate.yaml").read_text()
        for fixed, free in [("0.0.0.0:8080", public), ("0.0.0.0:9464", admin)]:
            assert configuration.count(fixed) == 1, f"{fixed} is not what the file listens on"
            configuration = configuration.replace(fixed, f"127.0.0.1:{free}")
        file = folder / "compose.yaml"
        file.write_text(configuration)
        environment = {"EVERYTHING": f"127.0.0.1:{everything}", "CLOCK": f"127.0.0.1:{clock}"}
        for port in (everything, clock):
            eventually(f"the server at {port} listens", lambda port=port: connects(port))
        running.append(start([toolgate, "run", "--config", file], folder / "compose.log", environment))
        eventually("the gateway is ready", lambda: fetch(admin, "/readyz"))
        eventually("both servers are listed", lambda: {"everything__echo", "clock__now"} <= tools(public))
        said = call(public, "everything__echo", {"message": "hello"})
        assert "hello" in said, said
        now = call(public, "clock__now", {"zone": "Europe/Berlin"})
        assert re.search(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\+0[12]:00", now), now
        print(f"{len(tools(public))} tools of two servers through the gateway: {now.strip()[:80]}")
    finally:
        for process in running:
            process.kill()


def check(compose):
    """Whatever is mounted is there, volumes are declared, and no image can change under its name's back."""
    declared = set(compose["volumes"])
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in declared or (DEPLOY / source).exists(), f"{name}: there is no {source}"
        image = service.get("image")
        assert "build" in service or re.search(r":[\w.-]*\d", image), f"{name}: {image} is of no version"
    given = compose["services"]["prometheus"]["volumes"]
    rules = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())["rule_files"]
    for rule in rules:
        assert any(volume.split(":")[1] == f"/etc/prometheus/{rule}" for volume in given), f"Prometheus lacks {rule}"
    source = yaml.safe_load((DEPLOY / "compose/grafana/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert source["type"] == "prometheus" and source["url"] == "http://prometheus:9090", source
    provider = yaml.safe_load((DEPLOY / "compose/grafana/dashboards/toolgate.yaml").read_text())["providers"][0]
    shown = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in shown, f"Grafana is not given {provider['options']['path']}"


def start_everything(service, cache, port, folder):
    """The npm package of the service's `npx` command."""
    npx, yes, package, transport = service["command"]
    assert (npx, yes) == ("npx", "--yes"), service["command"]
    name = package.rpartition("@")[0]
    installed = cache / "node"
    stamp = installed / "stamp"
    if not stamp.exists() or stamp.read_text() != package:
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", installed, package], check=True)
        stamp.write_text(package)
    program = installed / "node_modules" / ".bin" / ("mcp-" + name.rpartition("/")[2])
    return start([program, transport], folder / "everything.log", {"PORT": str(port)})


def start_clock(service, cache, port, folder):
    """The Python file of the service, with the packages of its `pip install`."""
    script = service["command"][2]
    packages = shlex.split(re.fullmatch(r"pip install --quiet (.*) && exec python /clock.py", script)[1])
    venv = cache / "clock"
    stamp = venv / "stamp"
    if not stamp.exists() or stamp.read_text() != script:
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
        stamp.write_text(script)
    return start([venv / "bin/python", DEPLOY / "compose/clock.py"], folder / "clock.log", {"HOST": "127.0.0.1", "PORT": str(port)})


def connects(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def post(port, message, session=None):
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        **({"Mcp-Session-Id": session, "Mcp-Protocol-Version": VERSION} if session else {}),
    }
    request = urllib.request.Request(f"http://127.0.0.1:{port}/mcp", json.dumps(message).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
        if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
            text = [line[6:] for line in text.splitlines() if line.startswith("data: {")][-1]
        return answer.headers["Mcp-Session-Id"], json.loads(text) if text else None


def ask(port, method, parameters):
    client = {"name": "test", "version": "1"}
    hello = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": client}
    session, _ = post(port, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})
    post(port, {"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
    _, answer = post(port, {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}, session)
    return answer["result"]


def tools(port):
    return {tool["name"] for tool in ask(port, "tools/list", {})["tools"]}


def call(port, tool, arguments):
    result = ask(port, "tools/call", {"name": tool, "arguments": arguments})
    assert not result.get("isError"), result
    return result["content"][0]["text"]


if __name__ == "__main__":
    main()
