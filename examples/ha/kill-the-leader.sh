#!/bin/sh
# Kills the leader of the cluster that run.sh has started, every ten seconds, and starts it again, while
# 50 clients take and release locks. Prints one line per second:
#
#   grants, the longest wait for a reply, lost acknowledgements and repeated tokens
#
#   examples/ha/kill-the-leader.sh FOLDER [SECONDS]
#
# FOLDER is the one that run.sh has printed. Needs Python 3, and nothing of it but the standard library.
set -eu
if [ $# -lt 1 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
exec python3 "$(dirname "$0")/load.py" "$@"
