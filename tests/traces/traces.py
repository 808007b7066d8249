"""Has a gateway trace calls of clients of both eras on backends of both, and looks at what OpenTelemetry's collector got of it.

    traces.py TOOLGATE COLLECTOR FOLDER
"""

import json
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
PREFIX = "io.modelcontextprotocol/"
STATE = "rojo=00f067aa0ba902b7"
BAGGAGE = "userId=alice"
# What stands in arguments, results and URIs, and must not in a span.
SECRET = "sesame-" + secrets.token_hex(8)
SERVER, CLIENT, ERROR = 2, 3, 2


def main():
    toolgate, binary, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    legacy, modern = Backend(LEGACY), Backend(MODERN)
    collector = Collector(binary, folder)
    dead = free_port()
    program = Path(__file__).parent.parent / "support" / "server.py"
    configuration = {
        "listeners": [{"address": "127.0.0.1:0"}],
        "admin": {"address": "127.0.0.1:0"},
        "backends": [
            {"name": "legacy", "url": legacy.url},
            {"name": "modern", "url": modern.url},
            {"name": "program", "command": [sys.executable, "-S", "-E", str(program)]},
        ],
        "health": {"interval": "1h", "timeout": "3s", "max_backoff": "1h"},
        "drain": {"delay": "0s"},
        "log": {"format": "json"},
        "traces": {"endpoint": collector.url, "headers": {"X-Key": {"value": SECRET}}},
    }
    gateway = Gateway(toolgate, folder, "first", configuration)
    try:
        old, new = Client(gateway, LEGACY), Client(gateway, MODERN)
        until(lambda: {"legacy__ok", "modern__ok", "program__pid"} <= set(old.tools()))
        within_an_era(collector, old, legacy, new, modern)
        across_eras(collector, old, legacy, new, modern)
        by_a_program(collector, old)
        what_fails(collector, old, new, modern)
        what_is_not_traced(collector, old, legacy)
        what_nobody_began(collector, old, legacy)
        the_last_is_sent(collector, old, gateway)
        told_nothing(collector, old)
        collector.stop()
        silent_receiver(Gateway(toolgate, folder, "second", configuration))
        on_demand(toolgate, folder, dead, configuration)
        print("traces: what is traced reaches the collector, and backends' spans hang below the gateway's")
    finally:
        collector.stop()
        gateway.kill()


def within_an_era(collector, old, legacy, new, modern):
    """The client's span, the gateway's two, the backend's: each below the one before."""
    told = Context()
    old.call("legacy__ok", headers={"traceparent": told.text, "tracestate": STATE, "baggage": BAGGAGE})
    server, client = collector.spans_of(told.trace)
    check(server, kind=SERVER, parentSpanId=told.span, name="tools/call legacy__ok", traceState=STATE)
    check(client, kind=CLIENT, parentSpanId=server["spanId"], name="tools/call ok", traceState=STATE)
    attributes = of(server)
    assert attributes.pop("mcp.session.id") in old.log_digits(), attributes
    assert attributes.pop("toolgate.request.id") and attributes.pop("jsonrpc.request.id") == str(old.id)
    assert attributes == {
        "client.address": "127.0.0.1",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "legacy__ok",
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": LEGACY,
        "network.protocol.name": "http",
        "network.transport": "tcp",
        "toolgate.backend": "legacy",
        "toolgate.outcome": "ok",
    }, attributes
    assert of(client)["gen_ai.tool.name"] == "ok" and of(client)["network.transport"] == "tcp", client
    assert "status" not in server or not server["status"], server
    starts = [int(server["startTimeUnixNano"]), int(client["startTimeUnixNano"]), int(client["events"][0]["timeUnixNano"])]
    ends = [int(client["endTimeUnixNano"]), int(server["endTimeUnixNano"])]
    assert starts + ends == sorted(starts + ends) and abs(ends[-1] / 1e9 - time.time()) < 60, starts + ends
    assert client["events"][0]["name"] == "first byte", client
    headers, body = legacy.last("tools/call")
    assert headers["Traceparent"] == f"00-{told.trace}-{client['spanId']}-01", headers
    assert (headers["Tracestate"], headers["Baggage"]) == (STATE, BAGGAGE), headers
    assert "_meta" not in body["params"], body

    # What the message says counts more than what its HTTP request says, which is linked to.
    message, request = Context(), Context()
    meta = {"traceparent": message.text, "tracestate": "a=b", "baggage": BAGGAGE}
    new.call("modern__ok", headers={"traceparent": request.text, "tracestate": STATE}, meta=meta)
    server, client = collector.spans_of(message.trace)
    check(server, kind=SERVER, parentSpanId=message.span, name="tools/call modern__ok")
    assert [(link["traceId"], link["spanId"]) for link in server["links"]] == [(request.trace, request.span)], server
    assert of(server)["mcp.protocol.version"] == MODERN and "mcp.session.id" not in of(server), server
    headers, body = modern.last("tools/call")
    told = f"00-{message.trace}-{client['spanId']}-01"
    assert headers["Traceparent"] == told and "Tracestate" not in headers, headers
    assert {key: value for key, value in body["params"]["_meta"].items() if not key.startswith(PREFIX)} == meta | {"traceparent": told}, body


def across_eras(collector, old, legacy, new, modern):
    for client, tool, backend in [(new, "legacy__ok", legacy), (old, "modern__ok", modern)]:
        told = Context()
        client.call(tool, meta={"traceparent": told.text})
        server, sent = collector.spans_of(told.trace)
        check(server, kind=SERVER, parentSpanId=told.span, name=f"tools/call {tool}")
        check(sent, kind=CLIENT, parentSpanId=server["spanId"])
        headers, body = backend.last("tools/call")
        belongs = f"00-{told.trace}-{sent['spanId']}-01"
        assert headers["Traceparent"] == belongs and body["params"]["_meta"]["traceparent"] == belongs, (headers, body)


def by_a_program(collector, old):
    told = Context()
    old.call("program__pid", meta={"traceparent": told.text})
    server, sent = collector.spans_of(told.trace)
    assert of(sent)["network.transport"] == "pipe", sent
    lines = json.loads(old.call("program__lines")["result"]["content"][0]["text"])
    [read] = [line for line in map(json.loads, lines) if line.get("params", {}).get("name") == "pid"]
    assert read["params"]["_meta"]["traceparent"] == f"00-{told.trace}-{sent['spanId']}-01", read
    check(server, parentSpanId=told.span)


def what_fails(collector, old, new, modern):
    def failed(client, tool, code, kind, outcome):
        told = Context()
        client.call(tool, headers={"traceparent": told.text})
        spans = collector.spans_of(told.trace)
        for span in spans:
            assert span["status"]["code"] == ERROR, span
            attributes = of(span)
            found = attributes.get("rpc.response.status_code"), attributes["error.type"], attributes["toolgate.outcome"]
            assert found == (code, kind, outcome), (tool, found)
        return spans

    failed(old, "legacy__fails", None, "tool_error", "tool_error")
    failed(old, "legacy__refuses", "-32099", "-32099", "rpc_error")
    # Nothing that a client has made up is told of what nobody has.
    [server] = failed(old, f"{SECRET}__x", "-32602", "-32602", "rpc_error")
    check(server, name="tools/call")
    modern.stop()
    spans = failed(new, "modern__ok", "503", "503", "unavailable")
    assert "cannot be reached" in spans[0]["status"]["message"], spans


def what_is_not_traced(collector, old, legacy):
    """A client that has decided so, for all that follows from it."""
    told = Context("00")
    old.call("legacy__ok", headers={"traceparent": told.text, "tracestate": STATE}, meta={"traceparent": told.text})
    headers, body = legacy.last("tools/call")
    assert (headers["Traceparent"], headers["Tracestate"]) == (told.text, STATE), headers
    assert body["params"]["_meta"]["traceparent"] == told.text, body
    # What came later is there, so it would be, too.
    after = Context()
    old.call("legacy__ok", headers={"traceparent": after.text})
    collector.spans_of(after.trace)
    assert not [span for span in collector.spans() if span["traceId"] == told.trace]


def what_nobody_began(collector, old, legacy):
    """Requests without a context have one from here on, and what the gateway answers itself has one span."""
    old.call("legacy__ok")
    headers, _ = legacy.last("tools/call")
    trace = headers["Traceparent"].split("-")[1]
    server, client = collector.spans_of(trace)
    assert "parentSpanId" not in server or not server["parentSpanId"], server
    assert headers["Traceparent"] == f"00-{trace}-{client['spanId']}-01", headers
    told = Context()
    old.ask("tools/list", {}, headers={"traceparent": told.text})
    [server] = collector.spans_of(told.trace, 1)
    check(server, kind=SERVER, name="tools/list", parentSpanId=told.span)


def the_last_is_sent(collector, old, gateway):
    told = Context()
    old.call("legacy__ok", headers={"traceparent": told.text})
    sent = gateway.metric('toolgate_spans_total{result="sent"}')
    gateway.stop()
    collector.spans_of(told.trace)
    assert sent and gateway.lines("spans cannot be sent") == [], gateway.log


def told_nothing(collector, old):
    text = collector.text()
    assert SECRET not in text, "an argument, a result or a header of the configuration is told"
    assert old.session not in text, "a session id that can be used is told"


def silent_receiver(gateway):
    """Nobody waits for a receiver that is not there, and that it is not is logged once."""
    client = Client(gateway, LEGACY)
    until(lambda: "legacy__ok" in client.tools())
    dropped = 'toolgate_spans_total{result="dropped"}'
    for count in (1, 2):
        before = gateway.metric(dropped)
        began = time.monotonic()
        assert "result" in client.call("legacy__ok")
        assert time.monotonic() - began < 5
        until(lambda: gateway.metric(dropped) > before)
    assert len(gateway.lines("spans cannot be sent")) == 1, gateway.log
    gateway.stop()


def on_demand(toolgate, folder, dead, configuration):
    """Of the requests whose clients have not decided, none is traced if none is to be."""
    traces = {"endpoint": f"http://127.0.0.1:{dead}/v1/traces", "sample_one_in": 0}
    gateway = Gateway(toolgate, folder, "third", configuration | {"traces": traces})
    client = Client(gateway, LEGACY)
    until(lambda: "legacy__ok" in client.tools())
    client.call("legacy__ok")
    gateway.stop()
    assert gateway.lines("spans cannot be sent") == [], gateway.log


class Context:
    """A client's span."""

    def __init__(self, flags="01"):
        self.trace, self.span = secrets.token_hex(16), secrets.token_hex(8)
        self.text = f"00-{self.trace}-{self.span}-{flags}"


def of(span):
    return {attribute["key"]: attribute["value"]["stringValue"] for attribute in span["attributes"]}


def check(span, **expected):
    found = {key: span.get(key) for key in expected}
    assert found == expected, f"{found} is not {expected}"


class Collector:
    """OpenTelemetry's, and what it sends on."""

    def __init__(self, binary, folder):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/v1/traces"
        taken = self.taken = []

        class Sink(BaseHTTPRequestHandler):
            def do_POST(self):
                taken.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
        threading.Thread(target=sink.serve_forever, daemon=True).start()
        onward = {
            "endpoint": f"http://127.0.0.1:{sink.server_address[1]}",
            "encoding": "json",
            "compression": "none",
            # At once, so that what the gateway has sent before it ended is not lost with the collector.
            "sending_queue": {"enabled": False},
        }
        configuration = {
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
            "exporters": {"otlp_http": onward},
            "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_http"]}}},
        }
        (folder / "collector.json").write_text(json.dumps(configuration))
        with (folder / "collector.log").open("wb") as log:
            self.process = subprocess.Popen([binary, "--config", folder / "collector.json"], stdout=log, stderr=log)
        until(lambda: self.process.poll() is None and listens(port))

    def text(self):
        return "\n".join(self.taken)

    def spans(self):
        for message in list(self.taken):
            for resource in json.loads(message)["resourceSpans"]:
                names = {a["key"]: a["value"]["stringValue"] for a in resource["resource"]["attributes"]}
                assert names["service.name"] == "toolgate" and names["service.version"], names
                for scope in resource["scopeSpans"]:
                    yield from scope["spans"]

    def spans_of(self, trace, count=None):
        """The spans of a trace once so many are there, the gateway's own first."""
        found = []

        def are_there():
            found[:] = [span for span in self.spans() if span["traceId"] == trace]
            return len(found) == count if count else found

        # All spans of a request are sent together.
        until(are_there)
        return sorted(found, key=lambda span: span["kind"])

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


class Gateway:
    def __init__(self, toolgate, folder, name, configuration):
        file = folder / f"{name}.yaml"
        file.write_text(json.dumps(configuration))
        self.log = folder / f"{name}.log"
        checked = subprocess.run([toolgate, "check", file], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([toolgate, "run", "--config", file], stdout=log, stderr=log)
        until(lambda: self.process.poll() is None and self.lines("serving the operator"))
        self.public = json.loads(self.lines("serving MCP")[0])["address"]
        self.admin = json.loads(self.lines("serving the operator")[0])["address"]

    def lines(self, what):
        return [line for line in self.log.read_text().splitlines() if what in line]

    def metric(self, series):
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series)), 0.0)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log

    def kill(self):
        self.process.kill()
        self.process.wait()


class Client:
    def __init__(self, gateway, version):
        self.gateway, self.version, self.session, self.id = gateway, version, None, 0
        if version == LEGACY:
            hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            self.ask("initialize", hello)

    def ask(self, method, parameters, headers={}, meta={}):
        self.id += 1
        headers = headers | {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.version == MODERN:
            own = {"protocolVersion": MODERN, "clientInfo": {"name": "t", "version": "1"}, "clientCapabilities": {}}
            meta = {PREFIX + key: value for key, value in own.items()} | meta
            headers |= {"Mcp-Protocol-Version": MODERN, "Mcp-Method": method, "Mcp-Name": parameters.get("name", "")}
        elif self.session:
            headers |= {"Mcp-Session-Id": self.session, "Mcp-Protocol-Version": LEGACY}
        if meta:
            parameters = parameters | {"_meta": meta}
        message = {"jsonrpc": "2.0", "id": self.id, "method": method, "params": parameters}
        request = urllib.request.Request(f"http://{self.gateway.public}/mcp", json.dumps(message).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            self.session = answer.headers["Mcp-Session-Id"] or self.session
            text = answer.read().decode()
        if answer.headers["Content-Type"] == "text/event-stream":
            text = [line for line in text.splitlines() if line.startswith("data: ")][-1].removeprefix("data: ")
        return json.loads(text)

    def call(self, tool, **told):
        return self.ask("tools/call", {"name": tool, "arguments": {"secret": SECRET}}, **told)

    def tools(self):
        return [tool["name"] for tool in self.ask("tools/list", {})["result"]["tools"]]

    def log_digits(self):
        """What the log says of the sessions of calls."""
        return {json.loads(line)["session"] for line in self.gateway.lines('"message":"call"')}


class Backend:
    """A small MCP server of one era."""

    def __init__(self, version):
        seen = self.seen = []
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("ok", "fails", "refuses")]
        content = [{"type": "text", "text": SECRET}]
        more = {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"} if version == MODERN else {}

        def answer_of(message):
            method, tool = message["method"], message.get("params", {}).get("name")
            if (method == "server/discover") != (version == MODERN) and method in ("server/discover", "initialize"):
                return {"error": {"code": -32601, "message": SECRET}}
            if tool == "refuses":
                return {"error": {"code": -32099, "message": SECRET}}
            results = {
                "initialize": {"protocolVersion": LEGACY, "capabilities": {"tools": {}}, "serverInfo": {"name": "b", "version": "1"}},
                "server/discover": {"supportedVersions": [MODERN], "capabilities": {"tools": {}}},
                "tools/list": {"tools": tools},
                "tools/call": {"content": content, "isError": tool == "fails"},
                "ping": {},
            }
            if method in results:
                return {"result": results[method] | more}
            return {"error": {"code": -32601, "message": "no such method"}}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append((dict(self.headers), message))
                if "id" in message:
                    self.answer(200, json.dumps({"jsonrpc": "2.0", "id": message["id"]} | answer_of(message)).encode())
                else:
                    self.answer(202, b"")

            def do_GET(self):
                self.answer(405, b"")

            do_DELETE = do_GET

            def answer(self, status, body):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def process_request(self, request, address):
                opened.append(request)
                super().process_request(request, address)

        opened = self.opened = []
        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/mcp"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def last(self, method):
        return [(headers, message) for headers, message in self.seen if message.get("method") == method][-1]

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        for connection in self.opened:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def listens(port):
    with socket.socket() as socket_:
        return socket_.connect_ex(("127.0.0.1", port)) == 0


def until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it did not become true within 30 s"
        time.sleep(0.05)


def free_port():
    with socket.socket() as socket_:
        socket_.bind(("127.0.0.1", 0))
        return socket_.getsockname()[1]


if __name__ == "__main__":
    main()
