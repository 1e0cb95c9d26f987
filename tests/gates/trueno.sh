# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-TRUENO: the numeric kernels.

# Blocks and the values that the reference computed from them, as two model files, compared by the tools; every kernel
# table of this machine. Planted fault: one bit of a block.
F_TRUENO_002() {
    local blocks=$GATE_WORK/trueno2-$1.gguf values=$GATE_WORK/trueno2-$1-values.gguf spoil='' table
    [ "$1" = bad ] && spoil=--spoil
    # shellcheck disable=SC2086 # an option or nothing
    tests/tools/vectors-to-gguf q4_k tests/data/quant/q4_k.txt "$blocks" "$values" $spoil || return 1
    for table in $(apr --version | sed -n 's/.*kernels: *//p' | tr -d ,); do
        expect 0 env APR_KERN="$table" apr diff-tensors "$blocks" "$values" --tolerance 1e-6 --json || return 1
        jq -e '.tensors_compared == 1 and .max_diff < 1e-6 and .results[0].dtype_a == "Q4_K" and .results[0].shape_a[0] >= 8' <<<"$out" || return 1
    done
    [ -n "${table:-}" ]
}
