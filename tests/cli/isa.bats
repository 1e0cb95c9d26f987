#!/usr/bin/env bats
# Kernels of other architectures: the same bits as the scalar ones, bit for bit, under an emulator.

setup_file() { # builds everything for the other architecture first
    export BATS_TEST_TIMEOUT=900
}

cross() { # ARCH
    cd "$BATS_TEST_DIRNAME/../.." || return 7
    [ "$(uname -m)" != "$1" ] || skip "this machine is $1: the unit tests cover it"
    run timeout 900 scripts/test-cross "$1"
    if [ "$status" -eq 9 ]; then skip "${lines[0]}"; fi
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "aarch64: NEON and SDOT give the scalar bits" {
    cross aarch64
}

@test "wasm32: WebAssembly SIMD gives the scalar bits under Node" {
    cross wasm32
}
