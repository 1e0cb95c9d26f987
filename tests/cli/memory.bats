#!/usr/bin/env bats
# shellcheck disable=SC2154 # run sets stderr
# What the engine keeps in memory: the model once, the cache, and little more.

load infer

setup() { infer_setup; }

# Matrices of 75 MiB: were one of them in memory both as rows and as strips, the bound would not hold.
@test "the model is in memory once, also after its matrices were laid out anew" {
    [[ "$(apr-infer --version)" != *sanitize* ]] || skip 'a sanitizer keeps memory of its own'
    tests/tools/big-model "$T/big" 400
    apr import "$T/big" --quantize q8_0 -q -o "$T/big.apr"
    n_bytes=$(stat -c %s "$T/big.apr")
    for n in 2 40; do
        scripts/measure "$T/rss" apr-infer run "$T/big.apr" --raw -p 'a b c' -n "$n" -t 2 --device cpu \
            --logit-bias 4000-inf --logit-bias 4002-inf >"$T/text"
    done
    cat "$T/rss"
    [ "$(jq -s --argjson model "$n_bytes" 'length == 2 and all(.status == 0 and .max_rss_bytes < $model + 48 * 1048576)' "$T/rss")" = true ]
}

# Buffers of a chunk grow with the chunk, the cache with the positions, nothing with their product.
@test "a long prompt costs its cache and the buffers of a chunk" {
    [[ "$(apr-infer --version)" != *sanitize* ]] || skip 'a sanitizer keeps memory of its own'
    for i in $(seq 1 700); do echo -n "word $i, "; done >"$T/prompt"
    apr import "$MODEL" --quantize q8_0 -q -o "$T/m.apr"
    scripts/measure "$T/rss" apr-infer run "$T/m.apr" --raw -i "$T/prompt" -n 4 -t 2 --device cpu --json >"$T/out"
    cat "$T/rss"
    # 8 layers, keys and values of 128 columns, two bytes each
    [ "$(jq --argjson n "$(jq .n_prompt_toks "$T/out")" --argjson model "$(stat -c %s "$T/m.apr")" \
        '$n > 2000 and .max_rss_bytes < $model + $n * 8 * 2 * 128 * 2 + 48 * 1048576' "$T/rss")" = true ]
}
