#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# How bench steps a device. The device is made up (tests/tools/fake-gpu.c): it says what it was asked for.

bats_require_minimum_version 1.5.0

setup_file() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    local bin=$BATS_FILE_TMPDIR/bin
    mkdir "$bin"
    cp "$(command -v apr-infer)" "$bin/"
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror -D_GNU_SOURCE -Ilib -shared -fPIC -o "$bin/apr-cuda.so" tests/tools/fake-gpu.c -lm
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
    [ "$(sed 's/ at .*//' "$FAKE_GPU_CALLS" | tr '\n' ';')" = 'forward of 1;greedy of 8;greedy of 8;greedy of 4;' ]
}

@test "at a depth, and behind a prompt, it begins there" {
    bench -p 0 -n 9 -d 33 -r 2 --json
    [ "$(calls)" = "forward of 33 at 0;$(printf 'greedy of 8 at 33, 0 stop tokens;greedy of 1 at 41, 0 stop tokens;%.0s' 1 2)" ]
    rm "$FAKE_GPU_CALLS"
    bench -p 0 -n 0 --pg 7,3 -r 1 --json
    [ "$(calls)" = 'forward of 7 at 0;greedy of 3 at 7, 0 stop tokens;' ]
    jq -e '.tests[0].n_latency_toks == 0' <<<"$output"
}

@test "sequences go on side by side, as in apr batch; one of them as one" {
    bench -p 4 -n 11 -r 2 --parallel 3,70 --json
    rows='greedy of 8, 3 rows;greedy of 3, 3 rows;'
    [ "$(grep rows "$FAKE_GPU_CALLS" | head -n 4 | tr '\n' ';')" = "$rows$rows" ]
    [ "$(grep rows "$FAKE_GPU_CALLS" | sed -n 5,8p | tr '\n' ';')" = 'greedy of 8, 64 rows;greedy of 8, 6 rows;greedy of 3, 64 rows;greedy of 3, 6 rows;' ]
    [ "$(grep -c '^forward of 4 at 0' "$FAKE_GPU_CALLS")" -eq 73 ]
    jq -e '.tests | map(.n_latency_toks == 8) | all' <<<"$output"
    rm "$FAKE_GPU_CALLS"
    bench -p 4 -n 3 -r 1 --parallel 1 --json
    [ "$(calls)" = 'forward of 4 at 0;greedy of 3 at 4, 0 stop tokens;' ]
}

@test "batch: greedy answers side by side are those of run and of steps; a prompt, top_p of all tokens or log-probabilities need steps" {
    for i in 1 2 3 4 5; do echo "{\"id\": $i, \"prompt\": \"question $i\", \"max_tokens\": $((5 * i))}"; done >"$BATS_TEST_TMPDIR/in"
    "$infer" batch "$M" --device cuda -i "$BATS_TEST_TMPDIR/in" -q --tokens >"$BATS_TEST_TMPDIR/ahead"
    [ "$(sed 's/ at .*//; s/step of.*/step/' "$FAKE_GPU_CALLS" | tr '\n' ';')" = 'step;greedy of 4, 5 rows;greedy of 5, 4 rows;greedy of 5, 3 rows;greedy of 5, 2 rows;greedy of 5;' ]
    FAKE_GPU_NO_ROWS=1 "$infer" batch "$M" --device cuda -i "$BATS_TEST_TMPDIR/in" -q --tokens >"$BATS_TEST_TMPDIR/steps"
    cmp "$BATS_TEST_TMPDIR/ahead" "$BATS_TEST_TMPDIR/steps"
    [ "$(jq -r 'select(.id == 3) | .text' "$BATS_TEST_TMPDIR/ahead")" = "$("$infer" run "$M" 'question 3' --device cuda -n 15 -q)" ]
    for more in '"temperature": 1, "top_p": 0.9' '"logprobs": true'; do
        rm "$FAKE_GPU_CALLS"
        sed "2s/}/, $more}/" "$BATS_TEST_TMPDIR/in" | "$infer" batch "$M" --device cuda -q >/dev/null
        [ "$(sed 's/ of .*//' "$FAKE_GPU_CALLS" | uniq -c | awk '{ print $1, $2 }' | tr '\n' ';')" = '10 step;3 greedy;' ]
    done
}

@test "batch: what a finished sequence holds is given to one that goes on alone, and to several" {
    long='"raw": true, "ignore_eos": true, "prompt": "x"'
    for n in 60 60 130; do echo "{$long, \"max_tokens\": $n}"; done >"$BATS_TEST_TMPDIR/one"
    for n in 30 30 30 60 60; do echo "{$long, \"max_tokens\": $n}"; done >"$BATS_TEST_TMPDIR/two"
    for n in 50 50 50; do echo "{$long, \"max_tokens\": $n}"; done >"$BATS_TEST_TMPDIR/pages" # four each
    for in in one two pages; do # 160 positions are 10 pages
        rm -f "$FAKE_GPU_CALLS"
        "$infer" batch "$M" --device cuda -c 160 -P 3 -i "$BATS_TEST_TMPDIR/$in" -q >"$BATS_TEST_TMPDIR/out"
        [ "$(jq -c .usage.completion_tokens "$BATS_TEST_TMPDIR/out" | tr '\n' ' ')" = "$(jq .max_tokens "$BATS_TEST_TMPDIR/$in" | tr '\n' ' ')" ]
        grep -q '^greedy of 8' "$FAKE_GPU_CALLS"
    done
}

@test "reference mode, and a device that has no such way, are stepped by the host; times are then those of steps" {
    bench -p 0 -n 5 -r 1 --exact --json
    [ "$(grep -c '^forward of 1 at' "$FAKE_GPU_CALLS")" -eq 5 ]
    jq -e '.tests[0].n_latency_toks == 1' <<<"$output"
    rm "$FAKE_GPU_CALLS"
    FAKE_GPU_NO_ROWS=1 bench -p 4 -n 5 -r 1 --parallel 3 --json
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
