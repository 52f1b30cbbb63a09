#!/usr/bin/env bash
# What got slower: `benches/regressions.sh save` keeps this state's figures as the baseline, `benches/regressions.sh` compares
# with them, prints what got slower and exits 1 if anything did. A second word filters, as in `benches/regressions.sh check acquire`.
# Run both on the same quiet machine: criterion calls a change one when it is beyond the noise of these two runs, no more.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-check}
filter=${2:-}
benches=(--bench lock_benchmarks --bench resp_benchmarks)
case $what in
save) cargo bench "${benches[@]}" -- --save-baseline regressions $filter ;;
check)
    if ! find target/criterion -type d -name regressions 2>/dev/null | grep -q .; then
        echo "there is no baseline; run benches/regressions.sh save first" >&2
        exit 2
    fi
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    cargo bench "${benches[@]}" -- --baseline regressions --noplot $filter | tee "$log"
    echo
    awk '
        /^[A-Za-z]/ { name = $1 }
        /change:/ { change = $0; sub(/^ +/, "", change) }
        /Performance has regressed/ { slower++; printf "slower: %-40s %s\n", name, change }
        /change:/ { compared++ }
        END {
            if (slower) exit 1
            if (!compared) { print "no bench has this in its name: nothing was compared"; exit 2 }
            print "nothing got slower than the baseline, of " compared " figures"
        }
    ' "$log"
    ;;
*)
    echo "usage: benches/regressions.sh [save | check] [filter]" >&2
    exit 2
    ;;
esac
