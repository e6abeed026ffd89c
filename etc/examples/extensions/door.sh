#!/bin/sh
# An extension in plain shell: the hub asks whether the door is open, and is told.
# Put it, executable, into NERVES_HUB_EXTENSIONS_DIR. See etc/doc/extensions.md for what is
# said on standard input and output.
set -u

# While this file exists, the door is open.
door=${DOOR_FILE:-/run/door-open}

if [ "${1-}" = --describe ]; then
    echo '{"name":"door","version":"0.0.1"}'
    exit
fi

report() {
    if [ -e "$door" ]; then open=true; else open=false; fi
    echo "{\"event\":\"report\",\"payload\":{\"open\":$open}}"
}

# One line for each thing the hub says; the end of them is the end of the extension.
while IFS= read -r line; do
    case $line in
        *'"status":"attached"'*) report ;;
        *'"event":"request"'*) report ;;
        *'"status"'*) ;;
        *) echo "unknown: $line" >&2 ;;
    esac
done
