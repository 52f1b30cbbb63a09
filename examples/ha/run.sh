#!/bin/sh
# Starts three etcd servers and three octostore servers on this machine, and says what to try.
# Everything ends with Ctrl-C. Needs etcd, and an octostore that was built with the feature etcd:
#
#   OCTOSTORE=path/to/octostore examples/ha/run.sh
#
# FOLDER keeps the data and the logs (default: a new one, removed at the end).
set -eu

octostore=${OCTOSTORE:-octostore}
if [ -n "${FOLDER:-}" ]; then
    folder=$FOLDER
    mkdir -p "$folder"
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi

processes=""
# stop [STATUS]: ends all of it.
stop() {
    trap - INT TERM
    # Those that lead first; etcd last, because it stores their last commits.
    for name in 7301 7302 7303 etcd1 etcd2 etcd3; do
        [ -e "$folder/$name.pid" ] || continue
        kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    done
    # shellcheck disable=SC2086
    wait $processes 2>/dev/null || true
    exit "${1:-0}"
}
trap stop INT TERM

# Says why there is no cluster, and ends all of it.
fail() {
    echo "$1; the ends of the logs:" >&2
    tail -n 3 "$folder"/*.log >&2
    stop 1
}

cluster=etcd1=http://127.0.0.1:23801,etcd2=http://127.0.0.1:23802,etcd3=http://127.0.0.1:23803
for n in 1 2 3; do
    etcd --name "etcd$n" --data-dir "$folder/etcd$n" --log-level error \
        --listen-client-urls "http://127.0.0.1:2379$n" --advertise-client-urls "http://127.0.0.1:2379$n" \
        --listen-peer-urls "http://127.0.0.1:2380$n" --initial-advertise-peer-urls "http://127.0.0.1:2380$n" \
        --initial-cluster "$cluster" --auto-compaction-mode periodic --auto-compaction-retention 5m \
        >"$folder/etcd$n.log" 2>&1 &
    echo $! >"$folder/etcd$n.pid"
    processes="$processes $!"
done

store=etcd://127.0.0.1:23791,127.0.0.1:23792,127.0.0.1:23793/locks
for n in 1 2 3; do
    "$octostore" --store "$store" --listen "127.0.0.1:730$n" --http "127.0.0.1:740$n" \
        >"$folder/730$n.out" 2>"$folder/730$n.log" &
    echo $! >"$folder/730$n.pid"
    processes="$processes $!"
done

# Until all servers answer, and one of them leads.
answers() { curl -s -o /dev/null "http://127.0.0.1:$1/health"; }
leads() { curl -sf -o /dev/null "http://127.0.0.1:$1/health/leader"; }
tries=0
until answers 7401 && answers 7402 && answers 7403 && { leads 7401 || leads 7402 || leads 7403; }; do
    tries=$((tries + 1))
    [ $tries -le 300 ] || fail "no server leads after 30 s"
    for process in $processes; do
        kill -0 "$process" 2>/dev/null || fail "a server has ended"
    done
    sleep 0.1
done

cat <<TEXT
Three servers serve one set of locks, on ports 7301, 7302 and 7303 (HTTP: 7401 to 7403).
Their logs and process ids are in $folder.

Try, in another terminal:
  redis-cli -p 7301 LOCK demo me EX 60          # any server takes the request
  redis-cli -p 7302 LOCKINFO demo               # and any other one knows
  redis-cli -p 7303 SENTINEL GET-MASTER-ADDR-BY-NAME octostore
  kill -9 \$(cat $folder/7301.pid)               # or 7302, or 7303: the one that leads
  redis-cli -p 7302 LOCKINFO demo               # the lock is still held, with the same token
  OCTOSTORE=$octostore examples/ha/kill-the-leader.sh $folder    # does that every ten seconds, under load

Ctrl-C ends everything.
TEXT
# shellcheck disable=SC2086
wait $processes
