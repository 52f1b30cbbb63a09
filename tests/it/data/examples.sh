# What the examples of the documents run with: the built program, on the ports of this test.
#
# Servers that an example starts run in the background until it ends. Commands that never end are
# stopped after their first line.

background=()
stop() {
    for process in "${background[@]}"; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
}
trap stop EXIT

# Starts a command in the background and prints its first line.
first_line_of() {
    local lines line
    exec {lines}< <(exec "$@" 2>>log)
    background+=($!)
    if ! IFS= read -r line <&"$lines"; then
        echo "'$*' prints nothing: $(cat log)" >&2
        exit 1
    fi
    printf '%s\n' "$line"
}

serve() { first_line_of "$OCTOSTORE" "$@" >/dev/null; }

octostore() {
    case "$*" in
        "" | -*) serve "$@" ;;
        "backup "*--every*) first_line_of "$OCTOSTORE" "$@" ;;
        "bench "*) "$OCTOSTORE" "${@/30s/1s}" ;;
        # In place of programs that only the documents have.
        "run "*) "$OCTOSTORE" "${@/#\/usr\/local\/bin\/*/true}" ;;
        *) "$OCTOSTORE" "$@" ;;
    esac
}

# The program is built, and tests are run elsewhere.
cargo() {
    case "$*" in
        "run --release") octostore ;;
        "run --release -- "*) octostore "${@:4}" ;;
        *) ;;
    esac
}

curl() {
    case "$1" in
        -N) first_line_of curl --silent "$@" ;;
        *) command curl --silent --show-error --fail-with-body "$@" ;;
    esac
}
