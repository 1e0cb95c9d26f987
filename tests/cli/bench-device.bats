#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# How bench steps a device. The device is made up (tests/tools/fake-gpu.c): it says what it was asked for.

bats_require_minimum_version 1.5.0

setup_file() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    local bin=$BATS_FILE_TMPDIR/bin
    mkdir "$bin"
    cp "$(command -v apr-infer)" "$bin/"
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror -D_GNU_SOURCE -Ilib -shared -fPIC -o "$bin/apr-cuda.so" tests/tools/fake-gpu.c
}

setup() {
    infer=$BATS_FILE_TMPDIR/bin/apr-infer
    M=tests/data/apr-demo-8M-Instruct
    export FAKE_GPU_CALLS=$BATS_TEST_TMPDIR/calls
}

bench() { run -0 --separate-stderr timeout 60 "$infer" bench "$M" --device cuda --warmup 0 "$@"; }
calls() { tr '\n' ';' <"$FAKE_GPU_CALLS"; }

@test "a sequence goes on alone, in the pieces of apr run and past end tokens; times say of how many tokens" {
    bench -p 0 -n 20 -r 2 --json
    piece='greedy of 8 at 0, 0 stop tokens;greedy of 8 at 8, 0 stop tokens;greedy of 4 at 16, 0 stop tokens;'
    [ "$(calls)" = "$piece$piece" ]
    jq -e '.tests | length == 1 and (.[0] | .test == "tg20" and .n_latency_toks == 8 and .latency_ms.mean > 0 and .toks_per_s.mean > 0 and
        (.samples_toks_per_s | length == 2))' <<<"$output"
    # the mean of a run cannot be below the least of its pieces, each per token
    jq -e '.tests[0] | (1000 / .latency_ms.max) <= .toks_per_s.max and (1000 / .latency_ms.min) >= .toks_per_s.min' <<<"$output"
    rm "$FAKE_GPU_CALLS"
    "$infer" run "$M" --device cuda -n 21 --ignore-eos --raw x -q >/dev/null
    [ "$(sed 's/ at [0-9]*//' "$FAKE_GPU_CALLS" | tr '\n' ';')" = "forward of 1;$(sed 's/ at [0-9]*//g' <<<"$piece")" ]
}

@test "at a depth, and behind a prompt, it begins there" {
    bench -p 0 -n 9 -d 33 -r 2 --json
    [ "$(calls)" = "forward of 33 at 0;$(printf 'greedy of 8 at 33, 0 stop tokens;greedy of 1 at 41, 0 stop tokens;%.0s' 1 2)" ]
    rm "$FAKE_GPU_CALLS"
    bench -p 0 -n 0 --pg 7,3 -r 1 --json
    [ "$(calls)" = 'forward of 7 at 0;greedy of 3 at 7, 0 stop tokens;' ]
    jq -e '.tests[0].n_latency_toks == 0' <<<"$output"
}

@test "reference mode and sequences together are stepped by the host, and their times are those of steps" {
    bench -p 0 -n 5 -r 1 --exact --json
    [ "$(grep -c '^forward of 1 at' "$FAKE_GPU_CALLS")" -eq 5 ]
    jq -e '.tests[0].n_latency_toks == 1' <<<"$output"
    rm "$FAKE_GPU_CALLS"
    bench -p 4 -n 5 -r 1 --parallel 3 --json
    [ "$(grep -c '^step of 3 at' "$FAKE_GPU_CALLS")" -eq 5 ]
    [ "$(grep -c '^forward of 4 at 0' "$FAKE_GPU_CALLS")" -eq 3 ]
    jq -e '.tests[0].n_latency_toks == 1' <<<"$output"
}

@test "in a table, means of several tokens are marked; one token at a time is not" {
    bench -p 4 -n 9,3,1 -r 1
    [[ "${lines[2]}" =~ \|\ pp4\ \|.*\|\ [0-9.]+\ \|\ [0-9.]+\ \|\ [0-9.]+\ \|\ [0-9.]+\ \|$ ]]
    [[ "${lines[3]}" =~ \|\ tg9\ \|.*\|\ [0-9.]+\ of\ 8\ \|\ [0-9.]+\ of\ 8\ \|\ [0-9.]+\ of\ 8\ \|\ [0-9.]+\ \|$ ]]
    [[ "${lines[4]}" == *' of 3 |'* ]]
    [[ "${lines[5]}" != *' of '* ]]
    bench -p 0 -n 9,1 -r 1 -o csv
    [ "$(awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "n_latency_toks") c = i; next } { print $c }' <<<"$output" | tr '\n' ' ')" = '8 1 ' ]
}

@test "a device that is lost between pieces: the run goes on, or it is one line and no output" {
    APR_GPU_FAULT=trap@2 bench -p 0 -n 20 -r 1 --json
    [[ "$stderr" == *"device: opened again after: "* ]]
    [ "$(cut -d, -f1 "$FAKE_GPU_CALLS" | tr '\n' ';')" = 'greedy of 8 at 0;greedy of 8 at 8;forward of 8 at 0;greedy of 8 at 8;greedy of 4 at 16;' ]
    APR_GPU_FAULT=trap@2- run --separate-stderr timeout 60 "$infer" bench "$M" --device cuda --warmup 0 -p 0 -n 20 -r 1 --json
    [ "$status" -eq 8 ]
    [ -z "$output" ]
}
