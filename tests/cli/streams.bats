#!/usr/bin/env bats
# shellcheck disable=SC2154 # stderr is set by run
# What every tool does with its streams, with signals, and with an output that cannot be finished.

setup() {
    bats_require_minimum_version 1.5.0
    cd "$BATS_TEST_DIRNAME/../.." || return 1
    PATH=${BINDIR:-$PWD/bin}:$PATH
    MODEL=tests/data/apr-demo-8M-Instruct
    T=$BATS_TEST_TMPDIR
    export APR_HOME=$T/home
    mkdir "$T/out"
}

is_empty() { [ -z "$(ls -A "$1")" ]; }

# Runs an import that waits for its input after half of it, and sends it SIGNAL: sets status.
interrupted() {
    apr import "$MODEL" -q -o "$T/m.apr"
    mkfifo "$T/fifo"
    { head -c 1000000 "$T/m.apr"; sleep 5; } >"$T/fifo" 3>&- &
    local feeder=$!
    env --default-signal=HUP apr-import convert - -q -o "$T/out/half.apr" <"$T/fifo" 2>"$T/err" 3>&- &
    local pid=$!
    sleep 0.7
    kill -0 "$pid"
    kill -s "$1" "$pid"
    status=0
    wait "$pid" || status=$?
    kill "$feeder" 2>/dev/null || true
    wait "$feeder" || true
}

@test "SIGTERM in the middle: status 143, no file, no temporary, no message" {
    interrupted TERM
    [ "$status" -eq 143 ]
    is_empty "$T/out"
    [ ! -s "$T/err" ]
}

@test "SIGHUP in the middle: status 129, nothing remains" {
    interrupted HUP
    [ "$status" -eq 129 ]
    is_empty "$T/out"
}

@test "SIGKILL in the middle: nothing remains where the file system has nameless files" {
    interrupted KILL
    [ "$status" -eq 137 ]
    is_empty "$T/out"
}

@test "SIGINT: status 130" {
    # A background job of a shell ignores SIGINT, so it is sent from within.
    mkfifo "$T/fifo"
    sleep 5 >"$T/fifo" 3>&- &
    local feeder=$!
    run timeout --preserve-status -s INT 0.5 apr-import convert - -q -o "$T/out/x.apr" <"$T/fifo"
    [ "$status" -eq 130 ]
    is_empty "$T/out"
    kill "$feeder" 2>/dev/null || true
}

@test "a reader that goes away: status 141, silent" {
    set +e
    apr import "$MODEL" -q -o - 2>"$T/err" | head -c 100 >/dev/null
    status=${PIPESTATUS[0]}
    set -e
    [ "$status" -eq 141 ]
    [ ! -s "$T/err" ]
}

@test "a full disk: status 7, one line" {
    for command in "apr import $MODEL -q -o -" "apr inspect $MODEL" "apr import --help"; do
        run --separate-stderr sh -c "$command >/dev/full"
        [ "$status" -eq 7 ] || { echo "$command: $status"; false; }
        [ "$(wc -l <<<"$stderr")" -eq 1 ]
        [[ "$stderr" == *"No space left"* ]]
    done
}

@test "closed standard streams do not become files" {
    run sh -c "apr inspect $MODEL >&-"
    [ "$status" -eq 7 ]
    run sh -c "apr-import convert - -o $T/out/x.apr <&-"
    [ "$status" -ne 0 ]
    run sh -c "apr import $MODEL -o $T/out/m.apr >&- 2>&- <&-"
    [ "$status" -eq 0 ]
    run apr validate "$T/out/m.apr" -q
    [ "$status" -eq 0 ]
}

@test "an existing file needs --force; a failed run keeps it" {
    echo precious >"$T/out/m.apr"
    run apr import "$MODEL" -q -o "$T/out/m.apr"
    [ "$status" -eq 2 ]
    [[ "$output" == *--force* ]]
    apr import "$MODEL" -q -o "$T/whole.apr"
    run sh -c "head -c 500000 $T/whole.apr | apr-import convert - --force -q -o $T/out/m.apr"
    [ "$status" -eq 4 ]
    [ "$(cat "$T/out/m.apr")" = precious ]
    [ "$(ls -A "$T/out")" = m.apr ]
    run apr import "$MODEL" -q --force -o "$T/out/m.apr"
    [ "$status" -eq 0 ]
    [ "$(head -c 3 "$T/out/m.apr")" = APR ]
}

@test "a cut file is status 4 and one line" {
    apr import "$MODEL" -q -o "$T/m.apr"
    truncate -s 100000 "$T/m.apr"
    run --separate-stderr apr inspect "$T/m.apr"
    [ "$status" -eq 4 ]
    [ -z "$output" ]
    [ "$(wc -l <<<"$stderr")" -eq 1 ]
}
