"""An MCP server over standard input and output, for tests: each tool is a way to behave, and so is each word it is run with.

births    writes its process id into the file named next when it is started
die       ends as soon as it is started, complains, and writes so into the file named next
born      writes into the file named next that it was started
deaf      answers `initialize` and reads no further
leveled   has a log level, which is `info` until it is told another one
late      reads nothing before the file named next is there
ponders   answers `server/discover`, as a modern server, when the file named next is there
stubborn  ends neither when its input does nor when it is asked to
unasked   what comes before `initialize` it answers with the error code named next, or with `death` or `silence`
"""

import json
import os
import signal
import subprocess
import sys
import time

DISCOVERED = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}

held = []
level = "info"
lines = []
subscribed = set()
waiting = {}


def after(word):
    """What stands behind a word that it is run with; nothing without that word."""
    return sys.argv[sys.argv.index(word) + 1] if word in sys.argv else None


def wait_for(file):
    while not os.path.exists(file):
        time.sleep(0.01)


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def notify(method, params):
    say({"jsonrpc": "2.0", "method": method, "params": params})


def answer(request, text):
    say({"jsonrpc": "2.0", "id": request["id"], "result": {"content": [{"type": "text", "text": str(text)}]}})


def progress(request, step):
    notify("notifications/progress", {"progressToken": request["params"]["_meta"]["progressToken"], "progress": step})


def flood(request):
    for number in range(20000):
        sys.stderr.write(f"line {number} " + "x" * 100 + "\n")
    answer(request, "flooded")


def long(request):
    answer(request, "x" * request["params"]["arguments"]["bytes"])


def log(request):
    for name in LEVELS[LEVELS.index(level):]:
        notify("notifications/message", {"level": name, "data": name})
    answer(request, "logged")


def noise(request):
    sys.stdout.write("Listening!\n\n   \n{not json\n\x1b[31mred\rgreen\tblue\r\n" + "\u00e9" * 1500 + "\n")
    answer(request, "made noise")


def ask(request):
    waiting["q"] = request
    method = request["params"]["arguments"].get("method", "ping/me")
    say({"jsonrpc": "2.0", "id": "q", "method": method, "params": {}})


def spawn(request):
    child = subprocess.Popen(["sleep", "1000"])
    answer(request, child.pid)


def chatter(request):
    progress(request, 1)
    notify("notifications/message", {"level": "info", "data": "chatter"})
    progress(request, 2)
    answer(request, "chattered")


def release(request):
    for one in held:
        if "_meta" in one["params"]:
            progress(one, 9)
        answer(one, "released")
    held.clear()
    answer(request, "released them")


def announce(request):
    notify("notifications/tools/list_changed", {})
    answer(request, "announced")


def touch(request):
    if WATCHED in subscribed:
        notify("notifications/resources/updated", {"uri": WATCHED, "_meta": request["params"]["arguments"]})
    answer(request, "touched")


LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
WATCHED = "test://watched"

TOOLS = {
    "announce": announce,
    "ask": ask,
    "chatter": chatter,
    "crash": lambda request: os._exit(7),
    "cwd": lambda request: answer(request, os.getcwd()),
    "env": lambda request: answer(request, json.dumps(dict(os.environ))),
    "flood": flood,
    "hold": held.append,
    "level": lambda request: answer(request, level),
    "lines": lambda request: answer(request, json.dumps(lines)),
    "log": log,
    "long": long,
    "noise": noise,
    "pid": lambda request: answer(request, os.getpid()),
    "release": release,
    "spawn": spawn,
    "touch": touch,
}


def fail(request, code, message):
    say({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message}})


def take_unasked(request, how):
    if how == "death":
        sys.exit(1)
    if how != "silence":
        fail(request, int(how), "not now")


def handle(message):
    global level
    method = message.get("method")
    is_first = not any('"initialize"' in line for line in lines)
    if is_first and "unasked" in sys.argv:
        take_unasked(message, after("unasked"))
    elif method == "server/discover" and "ponders" in sys.argv:
        wait_for(after("ponders"))
        say({"jsonrpc": "2.0", "id": message["id"], "result": DISCOVERED})
    elif method == "initialize":
        version = message["params"]["protocolVersion"]
        server = {"name": "fixture", "version": "1"}
        capabilities = {"tools": {"listChanged": True}, "resources": {"subscribe": True}}
        if "leveled" in sys.argv:
            capabilities["logging"] = {}
        result = {"protocolVersion": version, "capabilities": capabilities, "serverInfo": server}
        say({"jsonrpc": "2.0", "id": message["id"], "result": result})
        while "deaf" in sys.argv:
            time.sleep(1000)
    elif method == "tools/list":
        tools = [{"name": name, "description": name, "inputSchema": {"type": "object"}} for name in TOOLS]
        say({"jsonrpc": "2.0", "id": message["id"], "result": {"tools": tools}})
    elif method == "resources/list":
        resources = [{"uri": WATCHED, "name": "watched"}]
        say({"jsonrpc": "2.0", "id": message["id"], "result": {"resources": resources}})
    elif method in ("resources/subscribe", "resources/unsubscribe"):
        change = subscribed.add if method == "resources/subscribe" else subscribed.discard
        change(message["params"]["uri"])
        say({"jsonrpc": "2.0", "id": message["id"], "result": {}})
    elif method == "logging/setLevel" and "leveled" in sys.argv:
        level = message["params"]["level"]
        say({"jsonrpc": "2.0", "id": message["id"], "result": {}})
    elif method == "tools/call":
        TOOLS[message["params"]["name"]](message)
    elif method is None:
        answer(waiting.pop(message["id"]), json.dumps(message.get("error") or message.get("result")))
    elif "id" in message:
        fail(message, -32601, "Method not found")


def main():
    if "births" in sys.argv:
        with open(after("births"), "a") as births:
            births.write(f"{os.getpid()}\n")
    if "die" in sys.argv:
        with open(after("die"), "a") as births:
            births.write("born\n")
        sys.stderr.write("reading the licence\nno licence\n")
        sys.exit(3)
    if "born" in sys.argv:
        with open(sys.argv[sys.argv.index("born") + 1], "a") as births:
            births.write(f"{os.getpid()}\n")
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "late" in sys.argv:
        wait_for(after("late"))
    for line in sys.stdin:
        lines.append(line)
        handle(json.loads(line))
    while "stubborn" in sys.argv:
        time.sleep(1000)


main()
