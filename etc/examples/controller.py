#!/usr/bin/env python3
"""A decider for nerveshub-agent: it is asked before updates, reboots and archives.

Start it beside the agent and adapt `decide`. It needs nothing but Python 3. While it is
away, the agent falls back to its hooks and settings at once, and it registers again as soon
as the agent is there.

    NERVES_HUB_CONTROL_SOCKET=/run/nerveshub-agent.sock controller.py
"""

import json
import os
import socket
import sys
import time

SOCKET = os.environ.get("NERVES_HUB_CONTROL_SOCKET", "/run/nerveshub-agent.sock")
# While this file exists, the device is busy with something more important.
BUSY_FILE = os.environ.get("BUSY_FILE", "/run/busy")
RETRY_SECONDS = 5


def decide(ask, about):
    """The answer to a question, one line of text (see etc/doc/control.md)."""
    busy = os.path.exists(BUSY_FILE)
    if ask == "update-available":
        if about["version"].endswith("-broken"):
            return "ignore %s is known to be broken" % about["version"]
        return "reschedule 600 the device is busy" if busy else "apply"
    if ask == "reboot-request":
        return "defer 60 the device is busy" if busy else "reboot"
    if ask == "archive-available":
        return "download"
    return ""


def serve(connection):
    """Registers, then answers until the agent ends the connection."""
    lines = connection.makefile("r", encoding="utf-8", newline="\n")

    def say(message):
        connection.sendall((json.dumps(message) + "\n").encode())

    hello = json.loads(lines.readline())
    if "error" in hello:
        raise ConnectionError(hello["error"]["message"])
    if hello["hello"]["protocol"] != 1:
        sys.exit("controller: an agent of another protocol: %r" % hello)
    say({"id": 1, "method": "decide"})
    for line in lines:
        message = json.loads(line)
        if "ask" in message:
            answer = decide(message["ask"], message["about"])
            print("%s: %s" % (message["ask"], answer), flush=True)
            say({"question": message["question"], "answer": answer})
        elif "error" in message:
            # Somebody else is the decider, or an answer was not understood.
            print("controller: %(message)s" % message["error"], file=sys.stderr, flush=True)
            if message.get("id") == 1:
                raise ConnectionError(message["error"]["message"])


def main():
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(SOCKET)
                serve(connection)
        except OSError as error:
            print("controller: %s: %s" % (SOCKET, error), file=sys.stderr, flush=True)
        time.sleep(RETRY_SECONDS)


if __name__ == "__main__":
    main()
