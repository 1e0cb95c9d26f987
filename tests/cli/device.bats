#!/usr/bin/env bats
# --device: which machine computes, and what happens where there is no GPU.

bats_require_minimum_version 1.5.0

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    M=tests/data/apr-demo-8M-Instruct
    has_gpu=false
    if [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; then has_gpu=true; fi
}

@test "a device that does not exist is a usage error" {
    for device in foo cuda: cuda:x cuda:99 cudaX; do
        run --separate-stderr apr-infer run "$M" hi --device "$device"
        echo "$device: $status: $stderr"
        [ "$status" -eq 2 ]
        [[ "$stderr" == *"--device"*"$device"*"expected auto, cpu, cuda, cuda:N, cuda:N,M,... or cuda:all"* ]]
        [ -z "$output" ]
    done
}

@test "cuda without a GPU or a plugin: 9, one line, no other device takes over" {
    ! $has_gpu || skip 'this machine has a GPU'
    for verb in "run $M hi" "eval $M --file $BATS_TEST_FILENAME" "logits $M --prompt hi -o $BATS_TEST_TMPDIR/x" "bench $M" \
        "profile $M" "trace $M hi --launches" "ptx-map $M" "parity $M"; do
        # shellcheck disable=SC2086 # the words of a command
        run --separate-stderr apr-infer $verb --device cuda
        echo "$verb: $status: $stderr"
        [ "$status" -eq 9 ]
        [ "$(wc -l <<<"$stderr")" -eq 1 ]
        [ -z "$output" ]
    done
    [ ! -e "$BATS_TEST_TMPDIR/x" ]
}

@test "verbs that read what stays on a device refuse it, and compute on the CPU by themselves" {
    for verb in "check $M" "imatrix $M -f $BATS_TEST_FILENAME -o $BATS_TEST_TMPDIR/i.gguf" "embed $M hi"; do
        # shellcheck disable=SC2086
        run --separate-stderr apr-infer $verb --device cuda
        echo "$verb: $status: $stderr"
        [ "$status" -eq 9 ] || [ "$status" -eq 2 ] # check has no such option
        # shellcheck disable=SC2086
        run --separate-stderr apr-infer $verb -q
        [ "$status" -eq 0 ]
    done
}

@test "auto without a driver is the CPU, and says nothing" {
    ! $has_gpu || skip 'this machine has a GPU'
    run --separate-stderr apr-infer run "$M" "What is 2+2? Answer with just the number."
    [ "$status" -eq 0 ]
    [ "$output" = 4 ]
    [ -z "$stderr" ]
    run --separate-stderr apr-infer run "$M" "What is 2+2? Answer with just the number." --device auto
    [ "$output" = 4 ]
}

@test "a plugin of another interface is refused" {
    ! $has_gpu || skip 'this machine has a GPU'
    mkdir "$BATS_TEST_TMPDIR/bin"
    cp "$(command -v apr-infer)" "$BATS_TEST_TMPDIR/bin/"
    cat >"$BATS_TEST_TMPDIR/old.c" <<'C'
struct { unsigned abi, struct_bytes; } old = {99, 8};
void *apr_gpu_plugin(void) { return &old; }
C
    ${CC:-cc} -shared -fPIC -o "$BATS_TEST_TMPDIR/bin/apr-cuda.so" "$BATS_TEST_TMPDIR/old.c"
    run --separate-stderr "$BATS_TEST_TMPDIR/bin/apr-infer" run "$M" hi --device cuda
    echo "$status: $stderr"
    [ "$status" -eq 9 ]
    abi=$(sed -n 's/^#define APR_GPU_ABI \([0-9]*\)u$/\1/p' lib/gpu/gpu.h)
    [[ "$stderr" == *"interface 99 of 8 bytes, expected $abi of "*"build it anew"* ]]
    echo 'not an object' >"$BATS_TEST_TMPDIR/bin/apr-cuda.so"
    run --separate-stderr "$BATS_TEST_TMPDIR/bin/apr-infer" run "$M" hi --device cuda
    [ "$status" -eq 9 ]
    rm "$BATS_TEST_TMPDIR/bin/apr-cuda.so"
    run --separate-stderr "$BATS_TEST_TMPDIR/bin/apr-infer" run "$M" hi --device cuda
    [ "$status" -eq 9 ]
    [[ "$stderr" == *"apr-cuda.so"* ]]
}

@test "what only a GPU shows is not asked of the CPU, and the other way round" {
    for verb in "trace $M --launches" "trace $M --launches --device cpu" "trace $M --launches --device cuda --payload" \
        "ptx-map $M --kernel a --reverse b" "ptx-map $M --prefill --tokens 1"; do
        # shellcheck disable=SC2086 # the words of a command
        run --separate-stderr apr-infer $verb
        echo "$verb: $status: $stderr"
        [ "$status" -eq 2 ]
        [ "$(wc -l <<<"$stderr")" -eq 1 ]
        [ -z "$output" ]
    done
    for verb in "profile $M --device cuda --compare $M" "profile $M --device cuda --detect-naive" \
        "profile $M --device cuda -o $BATS_TEST_TMPDIR/f.svg" "ptx-map $M --device cpu" "parity $M --device cpu"; do
        # shellcheck disable=SC2086
        run --separate-stderr apr-infer $verb
        echo "$verb: $status: $stderr"
        [ "$status" -eq 9 ]
        [ -z "$output" ]
    done
    [ ! -e "$BATS_TEST_TMPDIR/f.svg" ]
}

@test "--memory-plan says what will be taken, on standard error" {
    run --separate-stderr apr-infer run "$M" hi -n 1 --memory-plan --device cpu
    [ "$status" -eq 0 ]
    [[ "$stderr" == *"memory plan: weights "*" MiB, mapped; cache of "*" positions "*" MiB"* ]]
}

@test "the plugin, where it is built, shows one symbol and needs the CUDA runtime's libraries alone" {
    plugin=$(dirname -- "$(command -v apr-infer)")/apr-cuda.so
    [ -e "$plugin" ] || skip 'no plugin here (make cuda)'
    run nm -D --defined-only "$plugin"
    echo "$output"
    [ "$(awk '$2 == "T" { print $3 }' <<<"$output")" = apr_gpu_plugin ]
    run objdump -p "$plugin"
    needed=$(sed -n 's/.*NEEDED *//p' <<<"$output" | grep -vE '^(libcublasLt|libcudart|libc|libm|libstdc\+\+|libgcc_s|librt|libpthread|libdl|ld-linux-x86-64)\.so' || true)
    echo "needed: $needed"
    [ -z "$needed" ]
}
