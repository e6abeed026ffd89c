# Shared by the bench-* scripts, which source it: builds, a hub, an agent, waits with a
# deadline each, and one line per budget. Measures nothing itself.
#
# Settings: CARGO_TARGET_DIR as for cargo; TMPDIR for the working folder (a tmpfs is best).
# shellcheck shell=sh

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$root/$target ;; esac
export CARGO_TARGET_DIR="$target"
agent=$target/release/nerveshub-agent
# Hub, stand-in and helpers are not what is measured: built for speed, away from the agent.
tools=$target/bench-tools/release

product_key=nhp_bench
product_secret=bench-secret
public_key=$(cat "$root/tests/data/fw/signing-key.pub")
device=bench-device
missed=0
hub_pid=
agent_pid=
work=

die() {
    echo "$(basename "$0"): $*" >&2
    for log in hub agent; do
        [ -z "$work" ] || [ ! -s "$work/$log.log" ] || {
            echo "--- end of the $log's log" >&2
            tail -n 15 "$work/$log.log" >&2
        }
    done
    exit 2
}

# stop PID: TERM, and KILL five seconds later; never an error.
stop() {
    if [ -z "$1" ] || ! kill "$1" 2>/dev/null; then return 0; fi
    tries=0
    while kill -0 "$1" 2>/dev/null && [ "$tries" -lt 50 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

stop_agent() {
    stop "$agent_pid"
    agent_pid=
}

clean_up() {
    stop_agent
    stop "$hub_pid"
    [ -z "$work" ] || rm -rf "$work"
}

# bench_begin: builds everything, makes the working folder.
bench_begin() {
    trap clean_up EXIT
    trap 'exit 130' INT TERM HUP
    work=$(mktemp -d)
    cd "$root"
    cargo build --quiet --release
    CARGO_TARGET_DIR=$target/bench-tools \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=3 \
        CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo build --quiet --release -p nerveshub-devhub -p fwup-standin
    cat >"$work/metadata" <<END
nerves_fw_active=a
a.nerves_fw_uuid=00000000-0000-5000-8000-000000000001
a.nerves_fw_product=demo
a.nerves_fw_version=0.0.1
a.nerves_fw_platform=demo-board
a.nerves_fw_architecture=x86_64
nerves_serial_number=$device
END
    echo "$(uname -srm), $(getconf _NPROCESSORS_ONLN) processors, load $(cut -d' ' -f1-3 /proc/loadavg)"
}

# within SECONDS WHAT COMMAND...: tries the command until it succeeds.
within() {
    left=$(($1 * 20)) what=$2
    shift 2
    until "$@"; do
        [ "$left" -gt 0 ] || die "$what: not in time"
        left=$((left - 1))
        sleep 0.05
    done
}

says() { grep -q "$2" "$1" 2>/dev/null; }

# start_hub OPTION...: a hub on ports of its own, its settings for agents in $work/hub.env.
start_hub() {
    "$tools/hub" serve --listen 127.0.0.1:0 --firmware-listen 127.0.0.1:0 \
        --control 127.0.0.1:0 --state "$work/state" \
        --product-key "$product_key" --product-secret "$product_secret" \
        "$@" >"$work/hub.log" 2>&1 &
    hub_pid=$!
    within 20 "hub" says "$work/hub.log" '^# ready'
    control=$(sed -n 's|^# control *http://||p' "$work/hub.log")
    grep '^NERVES_HUB_' "$work/hub.log" >"$work/hub.env"
}

hub() {
    "$tools/hub" "$@" --control "$control"
}

# start_agent NAME=VALUE...: the agent with these and the hub's settings, joined, and its
# first health report sent, after which the hub wants nothing of it.
start_agent() {
    # Each is a device of its own: no reboot of an earlier one is owed.
    rm -rf "$work/data"
    before=$(count_joins) reports=$(count_reports)
    set -- "NERVES_HUB_FIRMWARE_METADATA=file:$work/metadata" \
        "NERVES_HUB_DATA_PATH=$work/data" "NERVES_HUB_REBOOT_COMMAND=true" \
        "NERVES_HUB_REBOOT_FORCE=0" "NERVES_HUB_CONTROL_SOCKET=$work/control.sock" \
        "NERVES_HUB_EXTENSIONS_DIR=$work/extensions" "NERVES_HUB_HOOKS_DIR=$work/hooks" \
        "NERVES_HUB_FWUP_PUBLIC_KEYS=$public_key" "$@"
    while IFS= read -r line; do
        set -- "$@" "$line"
    done <"$work/hub.env"
    env -i "PATH=$PATH" "$@" "$agent" 2>"$work/agent.log" >/dev/null &
    agent_pid=$!
    within 20 "join" joined_since "$before"
    within 20 "health report" reported_since "$reports"
}

count_joins() { hub transcript | grep -c 'server .* device phx_reply .*"status":"ok"' || true; }
joined_since() {
    kill -0 "$agent_pid" 2>/dev/null || die "the agent has gone"
    [ "$(count_joins)" -gt "$1" ]
}

count_reports() { hub transcript | grep -c 'device .* health:report ' || true; }
reported_since() {
    kill -0 "$agent_pid" 2>/dev/null || die "the agent has gone"
    [ "$(count_reports)" -gt "$1" ]
}

# memory FIELD: of the agent, in KiB, from /proc/PID/status.
memory() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$agent_pid/status"; }

# exact FIELD: of the agent, in KiB, page by page; the kernel's counters lag a little.
exact() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$agent_pid/smaps_rollup"; }

# report WHAT FIGURE BUDGET UNIT: one line; a figure above the budget is a miss.
report() {
    if awk -v figure="$2" -v budget="$3" 'BEGIN { exit !(figure <= budget) }'; then
        verdict=PASS
    else
        verdict=FAIL
        missed=$((missed + 1))
    fi
    printf '%-48s %10s %-4s budget %8s %-4s %s\n' "$1" "$2" "$4" "$3" "$4" "$verdict"
}

bench_end() { [ "$missed" -eq 0 ] || exit 1; }

median() { sort -n | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
