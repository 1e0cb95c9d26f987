# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-CLI: the command line.

# Planted fault: a command that exists.
F_CLI_003() {
    local verb=nonexistent
    [ "$1" = bad ] && verb=--version
    expect 2 apr "$verb" && says 'unrecognized subcommand'
}

# Planted fault: an option that is not global takes the flag's place.
F_CLI_004() {
    local flag=--skip-contract verb n=0
    [ "$1" = bad ] && flag=--no-such-flag
    while IFS=$'\t' read -r verb _ gate _; do
        case $verb in '#'*) continue ;; esac
        [ "$gate" = gated ] || continue
        n=$((n + 1))
        apr "$verb" "$flag" --help >/dev/null 2>"$GATE_WORK/stderr" || {
            echo "$verb does not take $flag: $(cat "$GATE_WORK/stderr")"
            return 1
        }
    done <bin/verbs
    [ "$n" -gt 3 ]
}
