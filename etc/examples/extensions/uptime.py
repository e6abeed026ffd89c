#!/usr/bin/env python3
"""An extension in Python: how long the machine has been up, on request and once an hour.

Put it, executable, into NERVES_HUB_EXTENSIONS_DIR. It needs nothing but Python 3. See
etc/doc/extensions.md for what is said on standard input and output.
"""

import json
import queue
import sys
import threading

HOUR = 3600


def say(event, payload):
    print(json.dumps({"event": event, "payload": payload}), flush=True)


def report():
    with open("/proc/uptime", encoding="ascii") as file:
        say("report", {"seconds": int(float(file.read().split()[0]))})


def listen(lines):
    for line in sys.stdin:
        lines.put(json.loads(line))
    lines.put(None)


def main():
    lines = queue.Queue()
    threading.Thread(target=listen, args=(lines,), daemon=True).start()
    attached = False
    while True:
        try:
            line = lines.get(timeout=HOUR if attached else None)
        except queue.Empty:
            report()
            continue
        if line is None:
            return
        if "status" in line:
            attached = line["status"] == "attached"
        elif line["event"] == "request":
            report()
        else:
            print("unknown event", line["event"], file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:] == ["--describe"]:
        print(json.dumps({"name": "uptime", "version": "0.0.1"}))
    else:
        main()
