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

# The table that a run reports is the best that this CPU's own flags allow. Planted fault: another is forced.
F_TRUENO_001() {
    local flags best=scalar force='' isa
    flags=" $(sed -n -e 's/^flags[[:space:]]*: //p' -e 's/^Features[[:space:]]*: //p' /proc/cpuinfo | head -n 1) "
    has() { local f; for f; do [[ "$flags" == *" $f "* ]] || return 1; done; }
    for isa in sse4:ssse3,sse4_1,sse4_2 avx2:avx2,fma,f16c avx512:avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512_vnni neon:asimd; do
        # shellcheck disable=SC2046 # words
        ! grep -qw "${isa%%:*}" <<<"$(apr --version | grep kernels:)" || ! has $(tr , ' ' <<<"${isa#*:}") || best=${isa%%:*}
    done
    # A table that was built and that this CPU has the flags for must not be missing among the usable ones.
    if has avx2 fma f16c && [ "$best" != avx2 ] && [ "$best" != avx512 ]; then return 1; fi
    [ "$1" = bad ] && force=scalar
    expect 0 env APR_KERN="$force" apr run "$MODEL" "$QUESTION" -n 2 --device cpu --json || return 1
    same "$(jq -r .timings.kernels <<<"$out")" "$best" && { [ "$best" != scalar ] || ! has avx2; }
}

# A NaN that comes past the gate ends in status 8 and no text. Planted fault: a sound model.
F_TRUENO_005() {
    local m
    if [ "$1" = good ]; then m=$(broken_apr nan); else m=$(bf16_apr); fi
    expect 8 apr run "$m" "$QUESTION" --skip-contract --device cpu && says 'NaN' && same "$out" ''
}

# What is too small for a GPU must not lose by one: the smallest model, a token at a time, on the device that is chosen
# for it, against the CPU. Planted fault: a hundredth of the rate.
F_TRUENO_006() {
    local device rate spoil=1
    local -A of=()
    nvidia-smi -L >/dev/null 2>&1 || {
        echo 'no GPU here'
        return 77
    }
    [ "$1" = bad ] && spoil=0.01
    for device in cpu auto; do
        expect 0 apr bench "$MODEL" -p 0 -n 64 -r 5 --device "$device" --json || return 1
        of[$device]=$(jq '.tests[0].toks_per_s.mean' <<<"$out")
    done
    jq -en --argjson cpu "${of[cpu]}" --argjson auto "${of[auto]}" --argjson s "$spoil" '$auto * $s >= 0.9 * $cpu'
}

# Rows are rows: with a square matrix transposed, which no shape can tell, the answers are others, and the golden logits
# are those of the file as it is. Planted fault: the transposed one is expected to agree too.
F_TRUENO_007() {
    local name=model.layers.0.self_attn.o_proj.weight dir=$GATE_WORK/transposed m
    local -A best=()
    once "$dir" tests/tools/rewire "transpose=$name" "$MODEL" "$dir"
    for m in "$MODEL" "$dir"; do
        expect 0 apr logits "$m" --ids "$(jq -r '.cases[0].prompt_ids | map(tostring) | join(",")' "$GOLDEN/generation.json")" \
            --exact -q -f -o "$GATE_WORK/trueno7.f32" || return 1
        best[$m]=$(paste <(od -An -v -w4 -tf4 "$GATE_WORK/trueno7.f32") <(od -An -v -w4 -tf4 "$GOLDEN/logits-0.f32") |
            awk '{ d = $1 - $2; if (d < 0) d = -d; if (!(d <= m)) m = d } END { print (NR >= 4096 && m < 1e-3) ? "agrees" : "departs" }')
    done
    same "${best[$MODEL]}" agrees || return 1
    if [ "$1" = bad ]; then same "${best[$dir]}" agrees; else same "${best[$dir]}" departs; fi
}
