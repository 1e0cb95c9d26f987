#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# The cache's types: what they cost in accuracy and save in memory, and what refuses them.

load infer

setup() { infer_setup; }

# KL and agreement against the F16 cache over 2000 tokens: OPTION...
distance() {
    apr eval "$MODEL" --against "$MODEL" --file "$GOLDEN/eval-plain.txt" -n 2048 --json -q "$@" |
        jq -c '[.against.kl_nats.mean, .against.top1_agreement]'
}

# Found over the whole text: q8_0 0.00069 and 0.986, q4_0 0.141 and 0.826, q4_0 values under q8_0 keys 0.047.
@test "q8_0 is nearly the F16 cache, q4_0 is usable, values take q4_0 better than keys" {
    d=$(distance --cache-type q8_0)
    echo "q8_0: $d"
    jq -e '.[0] > 0 and .[0] < 0.001 and .[1] > 0.97' <<<"$d"
    d=$(distance --cache-type q4_0)
    echo "q4_0: $d"
    jq -e '.[0] > 0.001 and .[0] < 0.25 and .[1] > 0.75' <<<"$d"
    d=$(distance --cache-type-k q8_0 --cache-type-v q4_0)
    echo "q8_0, q4_0: $d"
    jq -e '.[0] > 0.001 and .[0] < 0.1 and .[1] > 0.85' <<<"$d"
    d=$(distance --cache-type f32)
    echo "f32: $d"
    jq -e '.[0] > 0 and .[0] < 0.00001' <<<"$d"
}

@test "memory is that of the types" {
    for row in "f16 f16 64" "q8_0 q8_0 34" "q4_0 q4_0 18" "f32 f32 128" "q8_0 f16 49" "f16 q4_0 41"; do
        read -r k v bytes <<<"$row"
        got=$(apr run "$MODEL" --raw -n 1 --json -q --cache-type-k "$k" --cache-type-v "$v" "one two three" | jq -c .cache)
        f16=$(apr run "$MODEL" --raw -n 1 --json -q "one two three" | jq .cache.bytes)
        echo "$row: $got of $f16"
        jq -e --arg k "$k" --arg v "$v" --argjson n $((f16 * bytes / 64)) '. == {keys: $k, values: $v, bytes: $n}' <<<"$got"
    done
    apr bench "$MODEL" -p 16 -n 0 -r 1 --warmup 0 --cache-type q8_0 -o json -q |
        jq -e '.tests[0] | .cache_type_k == "q8_0" and .cache_type_v == "q8_0" and .cache_bytes > 0'
}

@test "results do not depend on chunk, threads or kernels" {
    head -c 1500 "$GOLDEN/eval-plain.txt" >"$T/text"
    for t in q8_0 q4_0; do
        apr logits "$MODEL" --cache-type "$t" --prompt-file "$T/text" -t 1 -o "$T/want" --force -q
        for how in "-b 1 -t 2" "-b 7 -t 2" "-b 64 -t 1"; do
            # shellcheck disable=SC2086
            apr logits "$MODEL" --cache-type "$t" --prompt-file "$T/text" $how -o "$T/got" --force -q
            cmp "$T/want" "$T/got"
        done
        APR_KERN=scalar apr logits "$MODEL" --cache-type "$t" --prompt-file "$T/text" -o "$T/got" --force -q
        cmp "$T/want" "$T/got"
    done
}

@test "what cannot have such a cache says so" {
    for row in "q8_0 --exact" "q5_1 -q" "Q8_0 -q"; do
        read -r t option <<<"$row"
        run --separate-stderr apr run "$MODEL" hi --cache-type "$t" "$option"
        echo "$row: $stderr"
        [ "$status" -eq 2 ]
        [ -z "$output" ]
        [ "$(wc -l <<<"$stderr")" -eq 1 ]
    done
    apr run "$MODEL" hi --cache-type f32 --exact -n 1 -q
    run --separate-stderr apr run "$MODEL" hi --cache-type q8_0 --device cuda
    [ "$status" -eq 9 ]
    [[ $stderr == *"only the CPU"* ]]
}

@test "families: heads of no whole blocks, latent attention, encoders" {
    need_fixtures
    run --separate-stderr apr run "$GGUF/qwen3-bf16.gguf" --raw hi --cache-type q8_0
    [ "$status" -eq 2 ]
    [[ $stderr == *"blocks of 32 values; keys of this model have 48 a head"* ]]
    run --separate-stderr apr run "$GGUF/deepseek2-bf16.gguf" --raw hi --cache-type-v f32
    [ "$status" -eq 2 ]
    [[ $stderr == *"columns of its keys"* ]]
    run --separate-stderr apr embed "$GGUF/bert-bf16.gguf" hi --cache-type q8_0
    [ "$status" -eq 2 ]
    [[ $stderr == *"no cache"* ]]
    for m in llama3 mistral gemma2 gemma3; do
        [ -f "$GGUF/$m-bf16.gguf" ] || continue
        apr eval "$GGUF/$m-bf16.gguf" --against "$GGUF/$m-bf16.gguf" --cache-type q8_0 --window 64 -n 64 --text "$(head -c 900 "$GOLDEN/eval-plain.txt")" --json -q |
            jq -e --arg m "$m" '.against.kl_nats.mean < 0.01' || { echo "$m"; return 1; }
    done
}
