#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# APR_KERN: which kernels run, and that the choice changes no byte.

load infer

setup() { infer_setup; }

@test "APR_KERN: an unknown name is a usage error that lists the names" {
    APR_KERN=altivec run --separate-stderr apr logits "$MODEL" --ids 1,2,3 -q -o "$T/l.f32"
    [ "$status" -eq 2 ]
    [[ $stderr == *'APR_KERN=altivec: unknown kernels; known are: scalar, sse4, avx2, avx512bf16, avx512, neon, dotprod, simd128' ]]
    [ ! -e "$T/l.f32" ]
}

@test "APR_KERN: kernels of another architecture are refused with 9" {
    other=neon
    [ "$(uname -m)" != aarch64 ] || other=avx2
    APR_KERN=$other run --separate-stderr apr logits "$MODEL" --ids 1,2,3 -q -o "$T/l.f32"
    [ "$status" -eq 9 ]
    [[ $stderr == *"APR_KERN=$other: this CPU cannot run these kernels" ]]
}

@test "APR_KERN: every type of a quantized model gives the same bits with any kernels" {
    kernels=$(apr-infer --version | sed -n 's/^kernels: scalar//p')
    [ -n "$kernels" ] || skip 'this CPU has one table'
    for type in q4_k_m q5_0 q8_0 q6_k q2_k; do
        apr import "$MODEL" --quantize "$type" -q -o "$T/$type.apr"
        for exact in '' --exact; do
            # shellcheck disable=SC2086 # no option or one
            APR_KERN=scalar apr logits "$T/$type.apr" $exact --ids 5,6,7,8,9 -q --force -o "$T/scalar.f32"
            for kern in $kernels; do
                # shellcheck disable=SC2086
                APR_KERN=$kern apr logits "$T/$type.apr" $exact --ids 5,6,7,8,9 -q --force -o "$T/$kern.f32"
                cmp "$T/scalar.f32" "$T/$kern.f32"
            done
        done
    done
}
