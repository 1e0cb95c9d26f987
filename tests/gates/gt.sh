# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-GT: ground truth.

# Planted fault: the flag is left out.
F_GT_001() {
    local flag=--enforce-provenance
    [ "$1" = bad ] && flag=--quiet
    expect 5 apr import "$(q4k_gguf)" "$flag" -o "$GATE_WORK/gt1-$1.apr" && says F-GT-001 && [ ! -e "$GATE_WORK/gt1-$1.apr" ]
}

# Both comparing verbs warn. Planted fault: two files of one level.
F_GT_002() {
    local b verb
    if [ "$1" = good ]; then b=$(q4k_apr); else b=$(bf16_gguf); fi
    for verb in compare-inference diff-tensors; do
        apr rosetta "$verb" "$MODEL" "$b" --json >"$GATE_WORK/out" 2>"$GATE_WORK/stderr" </dev/null
        jq -e . "$GATE_WORK/out" >/dev/null || return 1
        err=$(cat "$GATE_WORK/stderr")
        says 'warning: mixed quant levels' || return 1
    done
}

# Planted fault: an .apr that was made from a GGUF.
F_GT_003() {
    local m
    if [ "$1" = good ]; then
        m=$(bf16_apr)
    else
        m=$GATE_WORK/gt3.apr
        once "$m" apr import "$(bf16_gguf)" -q -o "$m" || return 0
    fi
    expect 0 apr inspect "$m" --json || return 1
    jq -e '[.. | strings | select(test("safetensors|^pt$"))] | length > 0' <<<"$out" >/dev/null
}

# Planted fault: five seeds at a temperature of 2.
F_GT_004() {
    local i first='' text
    for i in 1 2 3 4 5; do
        if [ "$1" = good ]; then
            text=$(apr run "$(q4k_apr)" 'Write a function that adds two numbers.' --temperature 0 -n 24 2>/dev/null)
        else
            text=$(apr run "$(q4k_apr)" 'Write a function that adds two numbers.' --temperature 2 --seed "$i" -n 24 2>/dev/null)
        fi
        [ -n "$text" ] || return 1
        [ -n "$first" ] || first=$text
        same "$text" "$first" || return 1
    done
}

# The folder against the .apr and the GGUF made from it. Planted fault: the folder's merges in another order.
F_GT_005() {
    local m=$GATE_WORK/gt5-$1 other
    cp -r "$MODEL" "$m" && chmod -R u+w "$m"
    if [ "$1" = bad ]; then
        jq -c '.model.merges |= reverse' "$MODEL/tokenizer.json" >"$m/tokenizer.json" || return 0
        [ -e "$m/merges.txt" ] && rm "$m/merges.txt"
    fi
    for other in "$(bf16_apr)" "$(bf16_gguf)"; do
        apr rosetta compare-inference "$m" "$other" --chat --prompt "$QUESTION" --json >"$GATE_WORK/out" 2>"$GATE_WORK/stderr" </dev/null
        jq -e '.prompt_ids_match and .passed and .mismatches == 0 and .text_a == "4" and .text_b == "4"' "$GATE_WORK/out" || return 1
    done
}

# Planted fault: one shard is taken away.
F_GT_006() {
    local m=$GATE_WORK/gt6-$1
    cp -r "$MODEL" "$m"
    [ "$1" = bad ] && rm -f "$m/model-00003-of-00004.safetensors"
    expect 0 apr validate "$m" --json && same "$(jq .tensor_count <<<"$out")" 99 && same "$(jq .failed_tensor_count <<<"$out")" 0
}
