"""Has a real Prometheus scrape a Toolgate under mixed load, and looks at the dashboard and the rules through its eyes.

    monitoring.py TOOLGATE PROMETHEUS FOLDER

Fails when a panel's or a rule's query gives no data, or the dashboard does not hold together.
"""

import json
import math
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
VERSION = "2025-11-25"
DEADLINE_SECONDS = 90
PAUSE_SECONDS = 0.2
ROUNDS = 40


def main():
    toolgate, prometheus, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    dashboard = json.loads((DEPLOY / "grafana" / "toolgate.json").read_text())
    check(dashboard)
    folder.mkdir(parents=True, exist_ok=True)
    certify(folder)
    admin, public, plain, scraper = (free_port() for _ in range(4))
    backends = serve(), serve(folder)
    configuration = gateway_configuration(folder, backends, public, plain, admin)
    running = []
    try:
        running.append(start([toolgate, "run", "--config", configuration], folder / "toolgate.log"))
        eventually("the gateway is ready", lambda: fetch(admin, "/readyz"))
        running.append(start_prometheus(prometheus, folder, admin, scraper))
        eventually("Prometheus is ready", lambda: fetch(scraper, "/-/ready"))
        load(plain)
        queries = [(panel, expression) for panel, expression in expressions(dashboard)]
        missing = queries
        deadline = time.monotonic() + DEADLINE_SECONDS
        while missing and time.monotonic() < deadline:
            load(plain, rounds=2)
            missing = [(panel, expression) for panel, expression in missing if not has_data(scraper, expression)]
        for panel, expression in missing:
            print(f"no data for {panel}: {expression}")
        unhealthy = broken_rules(scraper)
        for rule in unhealthy:
            print(f"rule {rule}")
        print(f"{len(queries) - len(missing)} of {len(queries)} queries of panels have data")
        return 1 if missing or unhealthy else 0
    finally:
        for process in running:
            process.kill()
            process.wait()


def check(dashboard):
    """Ids are unique, panels lie beside each other, and each asks the datasource that was picked."""
    panels = dashboard["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids), "two panels have one id"
    taken = {}
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, f"{panel['title']} is too wide"
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                other = taken.setdefault((x, y), panel["title"])
                assert other == panel["title"], f"{panel['title']} lies on {other}"
        if panel["type"] == "row":
            continue
        assert panel["fieldConfig"]["defaults"]["unit"], f"{panel['title']} has no unit"
        for source in [panel, *panel["targets"]]:
            assert source["datasource"]["uid"] == "${datasource}", f"{panel['title']} asks a datasource of its own"
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert names == ["datasource", "job", "backend", "tool"], names


def expressions(dashboard):
    """The queries of every panel, with all jobs, backends and tools picked, each with the name of its panel."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "20s")
            for variable in ("job", "backend", "tool"):
                expression = expression.replace(f"${variable}", ".*")
            assert "$" not in expression, expression
            yield panel["title"], expression


def has_data(port, expression):
    """Whether a query gives a number."""
    answer = ask(port, "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
    assert answer["status"] == "success", answer
    return any(not math.isnan(float(sample["value"][1])) for sample in answer["data"]["result"])


def broken_rules(port):
    """Rules that Prometheus could not work out."""
    groups = ask(port, "/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 15, rules
    return [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] == "err"]


class Backend(BaseHTTPRequestHandler):
    """A server of 2025-11-25 whose tools succeed, fail and stall, and which lists another one now and then."""

    protocol_version = "HTTP/1.1"
    listed = 0

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        # A notification, or a message to the webhook.
        if "id" not in message:
            return self.answer(202, b"")
        result = self.result(message["method"], message.get("params", {}))
        body = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        return self.answer(200, json.dumps(body).encode(), message["method"] == "initialize")

    def result(self, method, params):
        if method == "initialize":
            about = {"name": "load", "version": "1"}
            return {"protocolVersion": VERSION, "capabilities": {"tools": {}}, "serverInfo": about}
        if method == "tools/list":
            Backend.listed += 1
            names = ["works", "fails", "stalls", "limited", f"changes-{Backend.listed // 3}"]
            return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}
        if method == "tools/call":
            if params["name"] == "stalls":
                time.sleep(0.1)
            return {"content": [], "isError": params["name"] == "fails"}
        return {}

    def do_DELETE(self):
        self.answer(204, b"")

    def do_GET(self):
        self.answer(405, b"")

    def answer(self, status, body, with_session=False):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if with_session:
            self.send_header("Mcp-Session-Id", "one")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def certify(folder):
    """Make a certificate for both sides of the gateway."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
         "-keyout", folder / "tls.key", "-out", folder / "tls.crt"],
        check=True, capture_output=True,
    )  # fmt: skip


def serve(folder=None):
    """Run a backend, over TLS where there is a folder with a certificate; gives its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    if folder:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def gateway_configuration(folder, backends, public, plain, admin):
    works, secure = backends
    text = f"""
listeners:
  - address: 127.0.0.1:{plain}
  - address: 127.0.0.1:{public}
    tls: {{ certificates: [{{ cert: tls.crt, key: tls.key }}] }}
admin: {{ address: 127.0.0.1:{admin} }}
backends:
  - {{ name: works, url: "http://127.0.0.1:{works}/mcp", synthetic: {{ tool: works, interval: 1s }} }}
  - {{ name: secure, url: "https://127.0.0.1:{secure}/mcp", tls: {{ ca: tls.crt, server_name: 127.0.0.1 }} }}
  - {{ name: dead, url: "http://127.0.0.1:{free_port()}/mcp" }}
limits: [{{ name: seldom, tools: [works__limited], rate: 1/m }}]
health: {{ interval: 1s, timeout: 1s }}
catalog: {{ refresh: 1s }}
webhook: {{ url: "http://127.0.0.1:{works}/told", secret: {{ file: webhook.key }} }}
"""
    (folder / "webhook.key").write_text("07" * 32)
    file = folder / "toolgate.yaml"
    file.write_text(text)
    return file


def start_prometheus(program, folder, admin, port):
    """With the configuration that is shipped, but for where the gateway is and how often it is looked at."""
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    text = text.replace("127.0.0.1:9464", f"127.0.0.1:{admin}").replace("15s", "1s")
    (folder / "prometheus.yml").write_text(text)
    (folder / "toolgate.rules.yml").write_text((DEPLOY / "prometheus" / "toolgate.rules.yml").read_text())
    arguments = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    return start(arguments, folder / "prometheus.log")


def load(port, rounds=ROUNDS):
    """Calls of every kind, of a legacy client."""
    about = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "load", "version": "1"}}
    session = post(port, {"id": 0, "method": "initialize", "params": about}).headers["Mcp-Session-Id"]
    for number in range(rounds):
        for tool in ("works__works", "works__fails", "works__stalls", "works__limited", "dead__tool"):
            post(port, {"id": number, "method": "tools/call", "params": {"name": tool, "arguments": {}}}, session)
        post(port, {"id": number, "method": "tools/list"}, session)


def post(port, message, session=None):
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if session:
        headers |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": VERSION}
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/mcp", body, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()
        return answer


def ask(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)


def fetch(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def eventually(what, holds):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {DEADLINE_SECONDS} s: {what}")
        time.sleep(PAUSE_SECONDS)


def start(arguments, log, environment=None):
    with log.open("wb") as output:
        variables = {**os.environ, **(environment or {})}
        return subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, env=variables)


def free_port():
    with socket.socket() as socket_:
        socket_.bind(("127.0.0.1", 0))
        return socket_.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
