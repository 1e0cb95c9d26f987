#!/usr/bin/env bats
# Malformed input at the command line: one line on stderr, the right status, nothing on stdout, no output file.
# (Every truncation and every bit of small files is tried in process by tests/unit/test_fmt_mutate.c.)

setup_file() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    F=$BATS_FILE_TMPDIR
    apr import tests/data/apr-demo-8M-Instruct -q -o "$F/whole.apr"
    apr export "$F/whole.apr" --format gguf -q -o "$F/whole.gguf"
    cp tests/data/apr-demo-8M-Instruct/model-00001-of-00004.safetensors "$F/whole.safetensors"
    export F
}

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    T=$BATS_TEST_TMPDIR
}

# refused STATUSES COMMAND...: one line on stderr, nothing on stdout, one of the statuses.
refused() {
    local want=$1 status=0
    shift
    "$@" >"$T/out" 2>"$T/err" || status=$?
    if [[ " $want " != *" $status "* ]] || [ "$(wc -l <"$T/err")" -ne 1 ] || [ -s "$T/out" ]; then
        echo "$*: status $status, expected $want; stderr: $(cat "$T/err")"
        return 1
    fi
}

# A byte by its number. The number is the program here.
# shellcheck disable=SC2059
byte() { printf "\\$(printf %03o "$1")"; }

# flipped FILE OFFSET: a copy with one bit of one byte changed
flipped() {
    local value
    value=$(od -An -tu1 -j "$2" -N 1 "$1")
    { head -c "$2" "$1"; byte $((value ^ 1 << ($2 % 8))); tail -c +$(($2 + 2)) "$1"; } >"$T/flipped"
}

@test "a file cut anywhere is refused, as a file and as a pipe" {
    local kind n
    for kind in safetensors apr gguf; do
        for n in 0 1 3 4 7 8 9 23 24 40 63 64 65 100 128 1000 4096 30000 100000 4000000; do
            head -c "$n" "$F/whole.$kind" >"$T/cut.$kind"
            refused "4" apr inspect "$T/cut.$kind"
            refused "4" apr inspect - <"$T/cut.$kind"
            refused "4" apr inspect - < <(cat "$T/cut.$kind")
        done
    done
}

@test "a flipped bit in a fixed header is refused or harmless, never accepted with a wrong size" {
    local at
    for at in $(seq 0 63); do
        flipped "$F/whole.apr" "$at"
        refused "4 6" apr inspect "$T/flipped"
    done
    for at in $(seq 0 7); do
        flipped "$F/whole.safetensors" "$at"
        refused "4" apr inspect "$T/flipped"
    done
    for at in 0 1 2 3 5 6 7 8 9 12 15 16 17 20 23; do
        flipped "$F/whole.gguf" "$at"
        refused "4 6" apr inspect "$T/flipped"
    done
}

@test "a flipped bit anywhere in an .apr stream is noticed at its end" {
    local at
    for at in 70 5000 60000 100000 150000 3000000 16000000; do
        flipped "$F/whole.apr" "$at"
        refused "4" apr inspect - < <(cat "$T/flipped")
    done
}

@test "a cut stream stops every consumer; no output appears" {
    head -c 9000000 "$F/whole.apr" >"$T/cut.apr"
    refused "4" apr-export gguf - -q -o "$T/a.gguf" < <(cat "$T/cut.apr")
    [ ! -e "$T/a.gguf" ]
    refused "4" apr-import convert - -q -o "$T/b.apr" < <(cat "$T/cut.apr")
    [ ! -e "$T/b.apr" ]
    refused "4" apr-export gguf "$T/cut.apr" -q -o "$T/a.gguf"
    [ -z "$(find "$T" -name '*.gguf*' -o -name '.*gguf*')" ]
}

@test "what is no model is named: git-lfs pointer, HTML, archive, text, nothing" {
    printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n' >"$T/a.safetensors"
    refused 4 apr inspect "$T/a.safetensors"
    grep -q 'git-lfs pointer' "$T/err"
    printf '<!doctype html><html></html>' >"$T/a.gguf"
    refused 4 apr tensors "$T/a.gguf"
    grep -q 'HTML page' "$T/err"
    printf 'PK\003\004xxxxxxxxxxxx' >"$T/pytorch_model.bin"
    refused 6 apr inspect "$T/pytorch_model.bin"
    seq 1 100 >"$T/text"
    refused 4 apr inspect "$T/text"
    grep -q 'unknown format' "$T/err"
    : >"$T/empty"
    refused 4 apr inspect "$T/empty"
    refused 3 apr inspect "$T/absent"
    mkdir "$T/folder"
    refused 3 apr inspect "$T/folder"
    mkfifo "$T/fifo"
    refused "4 7" timeout 5 apr inspect "$T/fifo"
}

@test "terminal escapes in names never reach the terminal" {
    local name
    name=$(printf '\\u001b]0;PWNED\\u0007')
    printf '{"%s":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}' "$name" >"$T/header"
    { byte "$(wc -c <"$T/header")"; printf '\0\0\0\0\0\0\0'; cat "$T/header"; printf x; } >"$T/a.safetensors"
    run apr tensors "$T/a.safetensors"
    [ "$status" -eq 0 ]
    [[ "$output" == *PWNED* && "$output" != *$'\x1b'* && "$output" != *$'\x07'* ]]
    apr tensors "$T/a.safetensors" --json | jq -e '.tensors[0].name | startswith("\u001b]0;")'
}
