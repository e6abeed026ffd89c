#!/bin/sh
# A decider for nerveshub-agent in plain shell: it is asked before updates, reboots and
# archives. Adapt `decide`. Needs socat (or another program that connects a Unix socket to
# its standard input and output, in CONNECT); without jq it takes what it needs from the
# lines with sed.
#
#   NERVES_HUB_CONTROL_SOCKET=/run/nerveshub-agent.sock controller.sh
set -u

socket=${NERVES_HUB_CONTROL_SOCKET:-/run/nerveshub-agent.sock}
connect=${CONNECT:-socat - UNIX-CONNECT:$socket}
# While this file exists, the device is busy with something more important.
busy=${BUSY_FILE:-/run/busy}
retry=5

# decide ASK LINE: the answer to a question, one line of text (see etc/doc/control.md).
decide() {
    case $1 in
        update-available)
            case $2 in
                *'"version":"'*'-broken"'*) echo "ignore known to be broken" ;;
                *) if [ -e "$busy" ]; then echo "reschedule 600 the device is busy"; else echo apply; fi ;;
            esac
            ;;
        reboot-request) if [ -e "$busy" ]; then echo "defer 60 the device is busy"; else echo reboot; fi ;;
        archive-available) echo download ;;
    esac
}

# field NAME LINE: a word or number of the agent's one-line JSON.
field() {
    printf '%s\n' "$2" | sed -n "s/.*\"$1\":\"\{0,1\}\([a-z0-9-]*\).*/\1/p"
}

# Reads the agent's lines, writes answers.
serve() {
    echo '{"id":1,"method":"decide"}'
    while IFS= read -r line; do
        case $line in
            *'"ask":'*)
                answer=$(decide "$(field ask "$line")" "$line")
                echo "{\"question\":$(field question "$line"),\"answer\":\"$answer\"}"
                echo "$(field ask "$line"): $answer" >&2
                ;;
            *'"error":'*) echo "controller: $line" >&2 ;;
        esac
    done
}

pipe=$(mktemp -u) && mkfifo -m 600 "$pipe" || exit 1
trap 'rm -f "$pipe"' EXIT
trap 'exit 0' INT TERM
while :; do
    # The agent's lines come back through the pipe.
    serve <"$pipe" | $connect >"$pipe"
    sleep "$retry"
done
