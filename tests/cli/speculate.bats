#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2153 # run --separate-stderr sets stderr; infer_setup sets MODEL
# Speculative decoding: whatever is proposed, by whom and how much of it, the text is the model's own.

load infer

setup() {
    infer_setup
    REF=tests/tools/decoder-reference
    FAMILIES=${APR_SHARED:-../shared}/fixtures/families
    # Words that come back, so that there is something to look up.
    TEXT='one two three four one two three four one two five four one two three'
}

small() { [ -d "$T/small" ] || tests/tools/small-model "$T/small" 7; }

# What must not change: MODEL OPTION...
answer() { apr run "$@" --json -q | jq -c '[.tokens, .text, .finish_reason]'; }
stat() { jq -r ".speculation.$1" <<<"$output"; }

# The same with speculation as without: MODEL "SPECULATION" OPTION...
same() {
    local model=$1 how=$2 want got
    shift 2
    want=$(answer "$model" "$@")
    # shellcheck disable=SC2086 # words
    got=$(answer "$model" "$@" $how)
    [ "$got" = "$want" ] || { echo "$model $how $*: $got instead of $want"; return 1; }
}

@test "lookup: the same text for every width, n-gram, kernel table, thread count and chunk" {
    for how in "" "--draft-min 1 --draft-max 1" "--draft-min 5" "--draft-min 16" "--draft-max 63 --draft-min 63" \
        "--lookup-ngram 2..4 --draft-min 7" "--lookup-ngram 16 --draft-min 3" "--draft-min 7 -t 1" "--draft-min 7 -t 3" \
        "--draft-max 9 -b 4" "--draft-max 9 -b 1"; do
        same "$MODEL" "--lookup $how" "$TEXT" --raw -n 40
    done
    APR_KERN=scalar same "$MODEL" "--lookup --draft-min 7" "$TEXT" --raw -n 20
    same "$MODEL" "--lookup --draft-min 7" "What is the capital of Turkey?" -n 40
    same "$MODEL" "--lookup --draft-min 7 --exact" "$TEXT" --raw -n 20 --exact
    same "$MODEL" "--lookup --draft-min 7" "$TEXT" --raw -n 20 --cache-type q8_0
}

@test "lookup: the same sampled text for the same seed, by any chain" {
    for how in "" "--top-k 9 --top-p 0.8 --min-p 0.05" "--repeat-penalty 1.3 --frequency-penalty 0.4" "--dry-multiplier 1" \
        "--mirostat 2 --mirostat-tau 3" "--xtc-probability 0.5 --xtc-threshold 0.05" "--typical-p 0.7" \
        "--dynatemp-range 0.5" "--cfg-scale 1.4 --negative-prompt no"; do
        # shellcheck disable=SC2086 # words
        same "$MODEL" "--lookup --draft-min 6" "$TEXT" --raw -n 24 --temperature 0.9 --seed 5 $how
    done
    same "$MODEL" "--lookup --draft-min 6" "$TEXT" --raw -n 24 --cfg-scale 1.5
}

@test "grammars, stop strings, end tokens, the end of the context, context shift" {
    small
    printf 'root ::= ("one " | "two " | "three ")+ "."' >"$T/g"
    for seed in 1 2 3; do
        same "$MODEL" "--lookup --draft-min 5" "$TEXT" --raw -n 30 --grammar "$T/g" --temperature 1 --seed $seed
    done
    same "$MODEL" "--lookup --draft-min 5" "$TEXT" --raw -n 30 --grammar "$T/g"
    echo '{"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 5, "maxItems": 9}' >"$T/s"
    same "$MODEL" "--lookup --draft-min 5" "A list" -n 60 --json-schema "$T/s" --temperature 1 --seed 4
    text=$(apr run "$MODEL" "$TEXT" --raw -n 40 -q)
    same "$MODEL" "--lookup --draft-min 9" "$TEXT" --raw -n 40 --stop "${text:20:3}"
    n=$(apr run "$MODEL" "$TEXT" --raw -n 1 --json -q | jq .n_prompt_toks)
    for c in $((n + 1)) $((n + 2)) $((n + 9)); do same "$MODEL" "--lookup --draft-min 9" "$TEXT" --raw -n -1 -c "$c"; done
    for k in 1 2 3 9; do same "$MODEL" "--lookup --draft-min 9" "$TEXT" --raw -n $k; done
    same "$T/small" "--lookup --draft-min 9" "$TEXT" --raw -n 150 -c 64 --context-shift
    same "$T/small" "--lookup --draft-min 9" "$TEXT" --raw -n 150 -c 64 --context-shift --temperature 0.2 --seed 3
}

@test "a draft model: the same greedy text, good or bad" {
    small
    for type in q8_0 q2_k; do
        apr import "$MODEL" --quantize $type -q -o "$T/$type.apr"
        same "$MODEL" "--draft $T/$type.apr --draft-min 4 --draft-p-min 0" "$TEXT" --raw -n 40
    done
    same "$MODEL" "--draft $T/small --draft-min 4 --draft-p-min 0" "$TEXT" --raw -n 40
    same "$MODEL" "--draft $T/q8_0.apr" "What is the capital of Turkey?" -n 40
    same "$MODEL" "--lookup --draft $T/q8_0.apr --draft-min 4" "$TEXT" --raw -n 40
    same "$T/small" "--draft $T/small --draft-min 8 --draft-p-min 0" "$TEXT" --raw -n 60 -c 50
    run -0 --separate-stderr apr run "$MODEL" "$TEXT" --raw -n 40 --draft "$T/q8_0.apr" --draft-min 4 --draft-p-min 0 --json -q
    [ "$(stat n_drafts)" -gt 2 ]
    at_most 0.5 "$(stat acceptance_rate)" # q8_0 guesses nearly always right
    run -0 --separate-stderr apr run "$MODEL" "$TEXT" --raw -n 40 --draft "$T/small" --draft-min 4 --draft-p-min 0 --json -q
    at_most "$(stat acceptance_rate)" 0.2
}

@test "a sampled draft: the same text again for the same seed, by any thread count; grammars hold" {
    small
    apr import "$MODEL" --quantize q4k -q -o "$T/d.apr"
    d() { answer "$MODEL" "$TEXT" --raw -n 40 --temperature 0.9 --draft "$T/d.apr" --draft-min 3 "$@"; }
    for how in "--seed 1" "--seed 2 --repeat-penalty 1.2" "--seed 3 --mirostat 2" "--seed 4 --xtc-probability 0.5"; do
        # shellcheck disable=SC2086 # words
        [ "$(d $how)" = "$(d $how -t 1)" ]
    done
    [ "$(d --seed 1)" != "$(d --seed 2)" ]
    # Without --draft-min lengths follow the odds, and still not the clock.
    a=$(apr run "$MODEL" "$TEXT" --raw -n 60 --temperature 0.9 --draft "$T/small" --json -q | jq -c '[.tokens, .speculation.n_steps]')
    b=$(apr run "$MODEL" "$TEXT" --raw -n 60 --temperature 0.9 --draft "$T/small" --json -q -t 1 | jq -c '[.tokens, .speculation.n_steps]')
    [ "$a" = "$b" ]
    printf 'root ::= ("one " | "two ")+ "."' >"$T/g"
    for seed in 1 2 3 4; do
        run -0 --separate-stderr apr run "$MODEL" "$TEXT" --raw -n 30 -q --grammar "$T/g" --temperature 2 --seed $seed --draft "$T/d.apr" --draft-min 4
        [[ $output =~ ^((one |two )+)\.$ ]]
    done
}

@test "windows, latent attention, experts" {
    [ -d "$FAMILIES" ] || skip "the fixtures are not here: $FAMILIES"
    for f in mistral gemma2 gemma3 deepseek2 mixtral gpt2 phi3; do
        same "$FAMILIES/$f" "--lookup --draft-min 9" "a b c d a b c d e f a b" --raw -n 40
        same "$FAMILIES/$f" "--lookup --draft-min 40 --draft-max 63" "a b c d a b c d e f a b" --raw -n 40
    done
}

@test "rotations that depend on the length of the sequence" {
    /usr/bin/python3 -c 'import numpy' 2>/dev/null || skip "python3-numpy is not installed"
    for kind in phi3-border phi3-long llama-dynamic llama-dynamic-long qwen2-window; do
        "$REF" make "$kind" "$T/$kind"
        for prompt in "a b" "a b a b a b" "one two one two"; do
            same "$T/$kind" "--lookup --draft-min 5" "$prompt" --raw -n 40
        done
    done
}

@test "statistics: in json and with --benchmark, and they add up" {
    run -0 --separate-stderr apr run "$MODEL" "$TEXT" --raw -n 40 --lookup --draft-min 4 --json -q
    jq -e '.speculation | .n_accepted <= .n_proposed and .n_plain_steps <= .n_steps and .verify_s > 0 and .n_drafts == 0' <<<"$output"
    jq -e '.speculation.n_steps + .speculation.n_accepted == .n_generated - 1' <<<"$output"
    jq -e '.speculation | (.toks_per_step * .n_steps - .n_steps - .n_accepted) | fabs < 1e-6' <<<"$output"
    run -0 --separate-stderr apr run "$MODEL" "$TEXT" --raw -n 20 --lookup --benchmark
    [[ $stderr == *"acceptance_rate"* ]]
    run -0 --separate-stderr apr run "$MODEL" "$TEXT" --raw -n 20 --json -q
    [ "$(jq .speculation <<<"$output")" = null ]
}

@test "what cannot be, or would do nothing, is refused by name" {
    small
    cp -rL "$T/small" "$T/other"
    jq '.model.vocab as $v | .model.vocab["if"] = $v["or"] | .model.vocab["or"] = $v["if"]' "$T/small/tokenizer.json" >"$T/other/tokenizer.json"
    [ "$(jq '.model.vocab | length' "$T/other/tokenizer.json")" = "$(jq '.model.vocab | length' "$T/small/tokenizer.json")" ]
    while IFS='|' read -r code args; do
        read -ra words <<<"$args"
        run --separate-stderr apr run "$MODEL" x --raw -n 4 -q "${words[@]}"
        echo "$args: $status $stderr"
        [ "$status" -eq "$code" ]
        [ "${#stderr_lines[@]}" -eq 1 ]
        [ -z "$output" ]
    done <<END
2|--draft-max 4
2|--draft-min 4
2|--draft-p-min 0.5
2|--lookup-ngram 2
2|--lookup --lookup-ngram 3..2
2|--lookup --lookup-ngram 0
2|--lookup --draft-max 64
2|--lookup --draft-max 4 --draft-min 5
2|--lookup --draft-p-min 0.5
2|--draft -
3|--draft $T/none.apr
6|--draft $T/other
END
    [[ $stderr == *"token "*'is "'*'not the same vocabulary'* ]]
}

@test "bench-speculate: the same bits at every position of an edited file" {
    [ -x "${O:-build}/bench/bench_speculate" ] || make -s "${O:-build}/bench/bench_speculate" || skip "it cannot be built here"
    run -0 scripts/bench-speculate -k go "$MODEL"
    [[ $output == *$'go-clock\t'*$'\tyes'* ]]
    run -3 scripts/bench-speculate -k no-such-prompt "$MODEL"
}
