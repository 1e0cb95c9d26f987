#!/usr/bin/env bats
# Walks bin/verbs: every row works, every tool has its rows and no other, help, manual and completion follow the table.

setup() {
    bats_require_minimum_version 1.5.0
    cd "$BATS_TEST_DIRNAME/../.." || return 1
    BINDIR=${BINDIR:-$PWD/bin}
    PATH=$BINDIR:$PATH
    T=$BATS_TEST_TMPDIR
}

rows() { grep -v '^#' bin/verbs; }
tools() { rows | cut -f 2 | grep '^apr-' | sort -u; }

@test "table: four columns, no verb twice, a gate that is known" {
    [ "$(rows | awk -F '\t' 'NF != 4' | wc -l)" -eq 0 ]
    [ "$(rows | cut -f 1 | sort | uniq -d)" = "" ]
    [ "$(rows | cut -f 3 | grep -vxE 'gated|exempt')" = "" ]
    [ "$(rows | wc -l)" -gt 10 ]
}

@test "table: every tool lists exactly its rows" {
    for tool in $(tools); do
        diff <("$tool" --list-verbs | sort) <(rows | awk -F '\t' -v t="$tool" '$2 == t { print $1 }' | sort)
    done
    for dir in tools/apr-*/; do # and no tool is without a row
        rows | cut -f 2 | grep -qx "$(basename "$dir")"
    done
}

@test "every verb: -h and --help succeed, say the summary, and are silent on standard error" {
    while IFS=$'\t' read -r verb _ _ summary; do
        for flag in -h --help; do
            run --separate-stderr apr "$verb" "$flag"
            [ "$status" -eq 0 ] || { echo "$verb $flag: $status"; false; }
            [ -z "$stderr" ]
            grep -qi '^usage:' <<<"$output"
        done
        case $verb in rosetta) ;; *) grep -qF -- "$summary" <<<"$output" ;; esac
    done < <(rows)
}

@test "every verb: an unknown option is a usage error of one line" {
    while IFS=$'\t' read -r verb _; do
        run --separate-stderr apr "$verb" --no-such-option
        [ "$status" -eq 2 ] || { echo "$verb: $status"; false; }
        [ -z "$output" ]
        [ "$(wc -l <<<"$stderr")" -eq 1 ] || { echo "$verb: $stderr"; false; }
    done < <(rows)
}

@test "every verb: --version names the build" {
    while IFS=$'\t' read -r verb tool _; do
        case $tool in apr-*) ;; *) continue ;; esac
        run apr "$verb" --version
        [ "$status" -eq 0 ]
        [[ "${lines[0]}" =~ ^$tool\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
        [[ "$output" == *compiler:* && "$output" == *"kernels: scalar"* ]]
    done < <(rows)
}

@test "every verb: the manual is well-formed roff and names every option" {
    while IFS=$'\t' read -r verb tool _; do
        case $tool in apr-*) ;; *) continue ;; esac
        "$tool" --man "$verb" >"$T/page.1"
        if command -v man >/dev/null; then
            [ -z "$(LC_ALL=C.UTF-8 man --warnings -l "$T/page.1" 2>&1 >/dev/null)" ]
        fi
        for option in $("$tool" --list-options "$verb" | grep '^--' | tr -d =); do
            sed 's/\\-/-/g' "$T/page.1" | grep -qF -- "$option"
            apr "$verb" --help | grep -qE -- "$option( |\$)"
        done
    done < <(rows)
}

@test "dispatcher: an unknown verb is status 2 and an unrecognized subcommand" {
    run --separate-stderr apr no-such-verb
    [ "$status" -eq 2 ]
    [ -z "$output" ]
    [ "$(wc -l <<<"$stderr")" -eq 1 ]
    [[ "$stderr" == *"unrecognized subcommand"* ]]
}

@test "dispatcher: help lists every verb; without a verb the same is a usage error" {
    run --separate-stderr apr --help
    [ "$status" -eq 0 ]
    while IFS=$'\t' read -r verb _ _ summary; do grep -qE "^  $verb +$summary\$" <<<"$output"; done < <(rows)
    run --separate-stderr apr
    [ "$status" -eq 2 ]
    [ -z "$output" ]
}

@test "dispatcher: stays short and plain" {
    [ "$(wc -l <bin/apr)" -le 20 ]
}

@test "tools: a word that is no verb goes to the first verb" {
    for tool in $(tools); do
        args=(/nonexistent/input)
        [ "$tool" != apr-infer ] || args+=(prompt)
        run --separate-stderr "$tool" "${args[@]}"
        [ "$status" -eq 3 ] || { echo "$tool: $status $stderr"; false; }
        [[ "$stderr" == "$tool: "* ]]
    done
}

@test "install: works from another place, with manual and completion" {
    make -s BINDIR="$(realpath --relative-to=. "$BINDIR")" ${O:+O="$O"} install DESTDIR="$T/root" PREFIX=/usr >/dev/null
    PATH=$T/root/usr/bin:/usr/bin:/bin
    cd "$T"
    run apr --version
    [ "$status" -eq 0 ]
    run apr inspect --help
    [ "$status" -eq 0 ]
    run apr rosetta --help
    [ "$status" -eq 0 ]
    [ -s "$T/root/usr/share/man/man1/apr-import.1" ]
    [ -s "$T/root/usr/share/man/man1/apr.1" ]
    # shellcheck disable=SC1091
    . "$T/root/usr/share/bash-completion/completions/apr"
    COMP_WORDS=(apr imp) COMP_CWORD=1
    _apr
    [ "${COMPREPLY[*]}" = import ]
    COMP_WORDS=(apr import --qua) COMP_CWORD=2
    _apr
    [ "${COMPREPLY[*]}" = --quantize ]
}
