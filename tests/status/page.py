"""Looks at the status page as an operator does: in Chromium, with and without JavaScript, in the dark and on a telephone.

    page.py TOOLGATE CHROMIUM FOLDER
"""

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

EVIL = '<script>document.title = "owned"</script><img src=x onerror="document.title = \'owned\'">&amp;'
PATIENCE = 30_000


def main():
    toolgate, chromium, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    good, dying = Backend({"search": "Finds <b>words</b>.", "evil": EVIL}), Backend({"read": "Reads a file."})
    public, admin = free_port(), free_port()
    configuration = folder / "toolgate.yaml"
    configuration.write_text(
        json.dumps(
            {
                "listeners": [{"address": f"127.0.0.1:{public}"}],
                "admin": {"address": f"127.0.0.1:{admin}"},
                "backends": [{"name": "good", "url": good.url}, {"name": "dying", "url": dying.url}],
                "limits": [{"name": "slowly", "tools": ["good__search"], "key": "session", "rate": "1/m"}],
                "health": {"interval": "200ms", "timeout": "200ms", "rise": 1, "fall": 1, "max_backoff": "200ms"},
                "drain": {"delay": "0s"},
            }
        )
    )
    with (folder / "toolgate.log").open("wb") as log:
        gateway = subprocess.Popen([toolgate, "run", "--config", configuration], stdout=log, stderr=log)
    try:
        until(lambda: reached(admin, "/readyz"))
        client = Client(public)
        until(lambda: len(client.ask("tools/list", {})["tools"]) == 3)
        for _ in range(3):
            client.ask("tools/call", {"name": "good__search", "arguments": {}})
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = watched(browser.new_context(viewport={"width": 1280, "height": 900}))
            look(page, admin, folder)
            without_javascript(browser, admin)
            dying.stop()
            row = page.locator("#backends tbody tr", has_text="dying")
            expect(row).to_contain_text("unhealthy", timeout=PATIENCE)
            expect(page.locator("#backends tbody tr", has_text="good")).to_contain_text("healthy")
            page.screenshot(path=folder / "one-is-dead.png", full_page=True)
            reloaded(page, configuration)
            small_and_dark(browser, admin, folder)
            gateway.terminate()
            expect(page.locator("#live")).to_contain_text("not live", timeout=PATIENCE)
            # That the gateway is away, the browser says itself.
            said = [text for text in page.said if "ERR_CONNECTION_REFUSED" not in text and "ERR_INCOMPLETE" not in text]
            assert not said, f"the console says: {said}"
            browser.close()
        print("the status page renders, is kept up to date, and shows text as text")
    finally:
        gateway.kill()
        good.stop()


def watched(context):
    page = context.new_page()
    page.said = []
    page.on("console", lambda message: page.said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    return page


def look(page, admin, folder):
    """All parts are there, and what backends say is text."""
    page.goto(f"http://127.0.0.1:{admin}/")
    expect(page.locator("#live")).to_have_text("live", timeout=PATIENCE)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the backends"
    expect(page.locator("#gateway")).to_contain_text("takes calls")
    for title in ["Backends", "Catalog", "Limits", "Sessions and streams", "What failed last", "What changed at backends", "Last reload"]:
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    expect(page.locator("#catalog")).to_contain_text("<script>document.title")
    expect(page.locator("#catalog")).to_contain_text("Finds <b>words</b>.")
    assert page.title() == "Toolgate", page.title()
    assert page.locator("#catalog script, #catalog img, #catalog b").count() == 0
    # Two of three calls were refused, and by what is said.
    expect(page.locator("#limits")).to_contain_text("slowly")
    expect(page.locator("#limits tbody tr").first.locator("td.number").nth(1)).to_have_text("2")
    expect(page.locator("#errors")).to_contain_text("limited")
    page.screenshot(path=folder / "light.png", full_page=True)

    page.get_by_label("Find tools").fill("files nobody has")
    expect(page.locator("#catalog tbody tr:visible")).to_have_count(0)
    page.get_by_label("Find tools").fill("FINDS")
    expect(page.locator("#catalog tbody tr:visible")).to_have_count(1)
    page.locator("#catalog summary:visible").click()
    expect(page.locator("#catalog pre:visible")).to_contain_text('"inputSchema"')
    page.get_by_label("Find tools").fill("")


def without_javascript(browser, admin):
    page = watched(browser.new_context(java_script_enabled=False))
    answer = page.goto(f"http://127.0.0.1:{admin}/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy, policy
    expect(page.locator("#backends tbody tr")).to_have_count(2)
    expect(page.locator("#catalog tbody tr")).to_have_count(3)
    page.get_by_label("Find tools").fill("reads")
    page.get_by_role("button", name="Find").click()
    expect(page.locator("#catalog tbody tr")).to_have_count(1)
    expect(page.get_by_label("Find tools")).to_have_value("reads")
    assert not page.said, page.said


def reloaded(page, configuration):
    """What a reload changed is told."""
    settings = json.loads(configuration.read_text())
    settings["limits"][0]["rate"] = "7/m"
    configuration.write_text(json.dumps(settings))
    expect(page.locator("#reload")).to_contain_text("limits[slowly].rate", timeout=PATIENCE)
    expect(page.locator("#reload")).to_contain_text("7/m")


def small_and_dark(browser, admin, folder):
    for name, options in {
        "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
        "small": {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2},
    }.items():
        page = watched(browser.new_context(**options))
        page.goto(f"http://127.0.0.1:{admin}/")
        expect(page.locator("#live")).to_have_text("live", timeout=PATIENCE)
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name}: the page is {wider} px wider than its window"
        page.screenshot(path=folder / f"{name}.png", full_page=True)
        assert not page.said, page.said


class Backend:
    """A small MCP server of 2025-11-25."""

    def __init__(self, tools):
        definitions = [{"name": name, "description": text, "inputSchema": {"type": "object"}} for name, text in tools.items()]

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                results = {
                    "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "b", "version": "1"}},
                    "tools/list": {"tools": definitions},
                    "tools/call": {"content": [{"type": "text", "text": "found"}]},
                    "ping": {},
                }
                if "id" not in message:
                    self.answer(202, b"")
                elif message["method"] in results:
                    self.answer(200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": results[message["method"]]}).encode())
                else:
                    error = {"code": -32601, "message": "no such method"}
                    self.answer(200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode())

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

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        for connection in self.opened:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Client:
    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/mcp"
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        self.session = None
        self.session, _ = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})

    def post(self, message):
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.session:
            headers |= {"Mcp-Session-Id": self.session, "Mcp-Protocol-Version": "2025-11-25"}
        request = urllib.request.Request(self.url, json.dumps(message).encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers["Mcp-Session-Id"], json.loads(answer.read() or b"null")

    def ask(self, method, parameters):
        return self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})[1]["result"]


def reached(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it did not become true within 30 s"
        time.sleep(0.1)


def free_port():
    with socket.socket() as socket_:
        socket_.bind(("127.0.0.1", 0))
        return socket_.getsockname()[1]


if __name__ == "__main__":
    main()
