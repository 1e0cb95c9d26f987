# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-PIPE: the stages of inference.

# Token counts of every golden text. Planted fault: one more is expected.
F_PIPE_001() {
    local i n want more=0
    [ "$1" = bad ] && more=1
    n=$(jq length "$GOLDEN/tokenizer.json")
    [ "$n" -gt 0 ] || return 1
    for ((i = 0; i < n; i++)); do
        jq -j --argjson i "$i" '.[$i].text' "$GOLDEN/tokenizer.json" >"$GATE_WORK/text"
        want=$(jq --argjson i "$i" '.[$i].ids | length' "$GOLDEN/tokenizer.json")
        expect 0 apr tokenize "$MODEL" -f "$GATE_WORK/text" --json || return 1
        same "$(jq '.ids | length' <<<"$out")" $((want + more)) || return 1
    done
}

# Planted fault: a model with an embedding of zeros.
F_PIPE_002() {
    local m
    if [ "$1" = good ]; then m=$(bf16_apr); else m=$(broken_apr zero-embed); fi
    expect 0 apr check "$m" --skip-contract --json && same "$(jq -r '.stages[1].result' <<<"$out")" pass
}

# Planted fault: another theta in config.json.
F_PIPE_003() {
    local m
    if [ "$1" = good ]; then m=$MODEL; else m=$(broken theta); fi
    expect 0 apr oracle "$m" --stats --json && same "$(jq '.. | .rope_theta? // empty' <<<"$out" | head -n 1 | cut -d. -f1)" 1000000
}

# Stage 5 measures it with values of 1. Planted fault: the bound is moved below what it can reach.
F_PIPE_004() {
    local bound=1e-5 off
    [ "$1" = bad ] && bound=-1
    expect 0 apr check "$MODEL" --json || return 1
    off=$(jq -r '.stages[4].measured' <<<"$out" | grep -oE 'sum to 1 within [0-9.e+-]+' | grep -oE '[0-9.e+-]+$')
    jq -en --argjson off "$off" --argjson bound "$bound" '$off <= $bound' >/dev/null
}

# Planted fault: the vocabulary of another model is expected.
F_PIPE_005() {
    local want=4096
    [ "$1" = bad ] && want=152064
    expect 0 apr logits "$(bf16_apr)" --prompt 'Hello' -o "$GATE_WORK/pipe5.f32" --json || return 1
    same "$(jq .n_vocab <<<"$out")" "$want" && same "$(stat -c %s "$GATE_WORK/pipe5.f32")" "$((want * 4 * $(jq .n_toks <<<"$out")))"
}

# Planted fault: sampling at a temperature of 2 with ten seeds.
F_PIPE_006() {
    local i first='' text
    for i in 1 2 3 4 5 6 7 8 9 10; do
        if [ "$1" = good ]; then
            text=$(apr run "$MODEL" 'Tell me a fact.' --temperature 0 -n 16 2>/dev/null)
        else
            text=$(apr run "$MODEL" 'Tell me a fact.' --temperature 2 --seed "$i" -n 16 2>/dev/null)
        fi
        [ -n "$text" ] || return 1
        [ -n "$first" ] || first=$text
        same "$text" "$first" || return 1
    done
}

# Planted fault: the fused name is what is looked for.
F_PIPE_007() {
    local p names
    names=$(apr tensors "$(bf16_apr)" --json | jq -r '.tensors[].name')
    for p in q_proj k_proj v_proj; do
        [ "$1" = bad ] && p=qkv_proj
        grep -q "self_attn.$p.weight" <<<"$names" || return 1
    done
    ! grep -q qkv_proj <<<"$names"
}
