#!/usr/bin/env bats
# A device that fails: what becomes of the requests. The device is made up (tests/tools/fake-gpu.c), its failures are not.

# shellcheck disable=SC2154 # stderr is set by run

bats_require_minimum_version 1.5.0

setup_file() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    local bin=$BATS_FILE_TMPDIR/bin
    mkdir "$bin"
    cp "$(command -v apr-infer)" "$bin/"
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror -D_GNU_SOURCE -Ilib -shared -fPIC -o "$bin/apr-cuda.so" tests/tools/fake-gpu.c -lm
    for i in 1 2 3 4 5 6; do echo "{\"id\": $i, \"prompt\": \"question $i\", \"max_tokens\": 6}"; done >"$BATS_FILE_TMPDIR/requests"
    "$bin/apr-infer" batch tests/data/apr-demo-8M-Instruct -i "$BATS_FILE_TMPDIR/requests" --device cuda -P 1 -q >"$BATS_FILE_TMPDIR/answers"
}

setup() {
    infer=$BATS_FILE_TMPDIR/bin/apr-infer
    M=tests/data/apr-demo-8M-Instruct
    requests=$BATS_FILE_TMPDIR/requests
    answers=$BATS_FILE_TMPDIR/answers
}

batch() { timeout 60 env "APR_GPU_FAULT=$fault" "$infer" batch "$M" -i "$requests" --device cuda "$@"; }
n_failed() { jq -s 'map(select(.error != null)) | length' <<<"$output"; }

@test "the made-up device answers, and six requests have six answers" {
    [ "$(wc -l <"$answers")" -eq 6 ]
    [ "$(jq -s 'map(select(.error != null)) | length' "$answers")" -eq 0 ]
}

@test "a device that is lost once is opened again, and no request notices" {
    fault=trap@5
    run --separate-stderr batch -P 1
    echo "$status: $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = "$(cat "$answers")" ]
    [[ "$stderr" == *"device: opened again after: "*"the device is lost"* ]]
    run --separate-stderr batch -P 4
    [ "$status" -eq 0 ]
    [ "$output" = "$(cat "$answers")" ]
}

@test "memory that comes back in time costs waiting, not requests" {
    fault=memory@1-2
    run --separate-stderr batch -P 1
    echo "$status: $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = "$(cat "$answers")" ]
}

@test "memory that does not come back: each request has its error, then the circuit opens; the process ends in order" {
    fault=memory@1-
    local begin=$SECONDS
    run --separate-stderr batch -P 1
    echo "$status: $stderr: $output"
    [ "$status" -eq 1 ]
    [ "$(wc -l <<<"$output")" -eq 6 ]
    [ "$(n_failed)" -eq 6 ]
    [[ "$(sed -n 1p <<<"$output")" == *"out of memory"* ]]
    [[ "$(sed -n 3p <<<"$output")" == *"has failed 5 times in a row and is not asked for"*"out of memory"* ]]
    [ $((SECONDS - begin)) -lt 10 ] # retries of two requests, none of the others
}

@test "a device that is lost again and again: errors of the requests, the answers before it are whole" {
    fault=trap@10-
    run --separate-stderr batch -P 1
    echo "$status: $stderr: $output"
    [ "$status" -eq 1 ]
    [ "$(wc -l <<<"$output")" -eq 6 ]
    n=$(n_failed)
    [ "$n" -ge 2 ]
    [ "$n" -lt 6 ]
    [ "$(head -n 1 <<<"$output")" = "$(head -n 1 "$answers")" ]
}

@test "a step that does not end: an error in time, and no waiting for the device" {
    fault=spin@4
    local begin=$SECONDS
    APR_GPU_TIMEOUT=0.2 run --separate-stderr batch -P 1
    echo "$status: $stderr: $output"
    [ "$status" -eq 1 ]
    [[ "$output" == *"no answer in time"* ]]
    [ "$(n_failed)" -ge 1 ]
    [ $((SECONDS - begin)) -lt 10 ]
}

@test "run: a failed device is status 8 and one line" {
    fault=trap@1-
    run --separate-stderr timeout 60 env "APR_GPU_FAULT=$fault" "$infer" run "$M" hi --device cuda -q
    echo "$status: $stderr"
    [ "$status" -eq 8 ]
    [ "$(wc -l <<<"$stderr")" -eq 1 ]
    [[ "$stderr" == *"cuda: "*"lost"* ]]
    fault=memory@1-
    run --separate-stderr timeout 60 env "APR_GPU_FAULT=$fault" "$infer" run "$M" hi --device cuda -q
    [ "$status" -eq 6 ]
    [[ "$stderr" == *"out of memory"* ]]
}

@test "faults and limits that are not understood are usage errors" {
    for fault in trap trap@ trap@0 trap@5-3 trap@x quake@1 @1 trap@1-2-3; do
        APR_GPU_FAULT=$fault run --separate-stderr "$infer" run "$M" hi --device cuda
        echo "$fault: $status: $stderr"
        [ "$status" -eq 2 ]
        [[ "$stderr" == *"APR_GPU_FAULT"* ]]
    done
    for limit in x 0 -1 1s; do
        APR_GPU_TIMEOUT=$limit run --separate-stderr "$infer" run "$M" hi --device cuda
        [ "$status" -eq 2 ]
    done
}
