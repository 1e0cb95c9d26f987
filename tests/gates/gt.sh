# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-GT: ground truth.

# Planted fault: the flag is left out.
F_GT_001() {
    local flag=--enforce-provenance
    [ "$1" = bad ] && flag=--quiet
    expect 5 apr import "$(q4k_gguf)" "$flag" -o "$GATE_WORK/gt1-$1.apr" && says F-GT-001 && [ ! -e "$GATE_WORK/gt1-$1.apr" ]
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

# Planted fault: one shard is taken away.
F_GT_006() {
    local m=$GATE_WORK/gt6-$1
    cp -r "$MODEL" "$m"
    [ "$1" = bad ] && rm -f "$m/model-00003-of-00004.safetensors"
    expect 0 apr validate "$m" --json && same "$(jq .tensor_count <<<"$out")" 99 && same "$(jq .failed_tensor_count <<<"$out")" 0
}
