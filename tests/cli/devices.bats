#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# One model on several GPUs: which devices, and what each gets. The devices are made up (tests/tools/fake-gpu.c).

bats_require_minimum_version 1.5.0

setup_file() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    local bin=$BATS_FILE_TMPDIR/bin
    mkdir "$bin"
    cp "$(command -v apr-infer)" "$bin/"
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror -D_GNU_SOURCE -Ilib -shared -fPIC -o "$bin/apr-cuda.so" tests/tools/fake-gpu.c -lm
}

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    infer=$BATS_FILE_TMPDIR/bin/apr-infer
    M=tests/data/apr-demo-8M-Instruct # 4 heads over 2 KV heads of 64, a middle of 768, 4096 tokens
    export FAKE_GPUS=4
}

go_with() { run --separate-stderr timeout 60 "$infer" run "$1" hi -n 4 --device "$2"; }
go() { go_with "$M" "$1"; }

@test "two devices share heads, middle and vocabulary; the answer is the one of one device" {
    go cuda
    [ "$status" -eq 0 ]
    answer=$output
    go cuda:1
    [ "$output" = "$answer" ]
    go cuda:0,3
    echo "$status: $stderr"
    [ "$status" -eq 0 ]
    [ "$output" = "$answer" ]
    [[ "$stderr" == *"made-up device 0: 2 heads, 1 KV heads, middle 384, rows 2048"* ]]
    [[ "$stderr" == *"made-up device 3: 2 heads, 1 KV heads, middle 384, rows 2048"* ]]
    [ "$(grep -c made-up <<<"$stderr")" -eq 2 ]
}

@test "cuda:all is every device there is: four, two, one" {
    go cuda:all
    echo "$status: $stderr"
    [ "$status" -eq 0 ]
    [ "$(grep -c '1 heads, 1 KV heads, middle 192, rows 1024' <<<"$stderr")" -eq 4 ]
    FAKE_GPUS=2 go cuda:all
    [ "$(grep -c '2 heads, 1 KV heads, middle 384, rows 2048' <<<"$stderr")" -eq 2 ]
    FAKE_GPUS=1 go cuda:all
    [ "$status" -eq 0 ]
    [[ "$stderr" != *"made-up device"* ]]
}

@test "a number of devices that does not divide the heads is refused with the numbers" {
    go cuda:0,1,2
    echo "$status: $stderr"
    [ "$status" -eq 9 ]
    [ "$(wc -l <<<"$stderr")" -eq 1 ]
    [[ "$stderr" == *"4 heads over 2 KV heads cannot be shared by 3 devices; a number that divides 2 can, or a multiple of it that divides 4"* ]]
}

@test "a matrix that is not cut between its blocks is refused with the numbers" {
    apr-import st "$M" --quantize q4k --pure -o "$BATS_TEST_TMPDIR/q4k.apr" -q
    go_with "$BATS_TEST_TMPDIR/q4k.apr" cuda:0,1
    echo "$status: $stderr"
    [ "$status" -eq 9 ]
    [[ "$stderr" == *"layer 0: o is Q4_K in blocks of 256, and 2 heads of 64 are 128 columns: 2 devices cannot share it"* ]]
}

@test "devices that are not there, or named twice" {
    FAKE_GPUS=1 go cuda:0,1
    [ "$status" -eq 9 ]
    [ "$(wc -l <<<"$stderr")" -eq 1 ]
    go cuda:1,1
    echo "$status: $stderr"
    [ "$status" -eq 2 ]
    [[ "$stderr" == *"names device 1 twice"* ]]
}

@test "several devices that are lost are all opened again" {
    echo '{"id": 1, "prompt": "question", "max_tokens": 6}' >"$BATS_TEST_TMPDIR/requests"
    APR_GPU_FAULT=trap@2 run --separate-stderr timeout 60 "$infer" batch "$M" -i "$BATS_TEST_TMPDIR/requests" --device cuda:0,1
    echo "$status: $stderr"
    [ "$status" -eq 0 ]
    [[ "$stderr" == *"device: opened again after: "* ]]
    [ "$(jq -r '.error' <<<"$output")" = null ]
}
