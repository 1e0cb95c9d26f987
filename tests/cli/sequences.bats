#!/usr/bin/env bats
# Long sequences: a thousand tokens, and windows whose past is let go.

load infer

setup() { infer_setup; }

no_end() { jq -r '.eos_token_id | if type == "array" then .[] else . end | "--logit-bias \(.)-inf"' "$MODEL/generation_config.json"; }

@test "1024 tokens: every logit is finite, and threads do not change the text" {
    # shellcheck disable=SC2046 # words
    apr run "$MODEL" "Tell me a story." -n 1024 $(no_end) -t 1 --json -q >"$T/1"
    # shellcheck disable=SC2046 # words
    apr run "$MODEL" "Tell me a story." -n 1024 $(no_end) -t 2 --json -q >"$T/2"
    jq -e '.n_generated == 1024 and (.tokens | length) == 1024 and .finish_reason == "length"' "$T/1"
    [ "$(jq -c '[.tokens, .text]' "$T/1")" = "$(jq -c '[.tokens, .text]' "$T/2")" ]
}

@test "a long text at once gives the logits that it gives one by one" {
    # shellcheck disable=SC2046 # words
    apr run "$MODEL" "Tell me a story." -n 300 $(no_end) -q --raw >"$T/text"
    for b in 1 7 512; do apr logits "$MODEL" --prompt-file "$T/text" -b $b -o "$T/$b.f32" -q; done
    cmp "$T/1.f32" "$T/512.f32"
    cmp "$T/7.f32" "$T/512.f32"
}

@test "a model whose layers all see a window: the cache does not grow with the text" {
    families=${APR_SHARED:-../shared}/fixtures/families
    [ -d "$families/mistral" ] || skip "the fixtures are not here: $families"
    apr bench "$families/mistral" -p 0 -n 4 -d 200,1500 -r 1 --warmup 0 --json -q >"$T/window"
    jq -e '.tests[1].cache_bytes <= .tests[0].cache_bytes * 1.3' "$T/window"
    apr bench "$families/llama2" -p 0 -n 4 -d 200,1500 -r 1 --warmup 0 --json -q >"$T/all"
    jq -e '.tests[1].cache_bytes >= .tests[0].cache_bytes * 7' "$T/all"
    # one prompt of 600 tokens and the same token by token: windows move in other steps
    apr run "$MODEL" "Tell me a story." -n 300 -q >"$T/text"
    for b in 1 64 600; do apr logits "$families/mistral" --prompt-file "$T/text" -b $b -o "$T/$b.f32" -q; done
    cmp "$T/1.f32" "$T/600.f32"
    cmp "$T/64.f32" "$T/600.f32"
}
