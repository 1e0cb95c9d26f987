# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-MODEL: what oracle knows.

# A 7B configuration is made from the contract's numbers. Planted fault: one number is another.
seven_b() { # HIDDEN: a folder with config.json and no weights
    local dir=$GATE_WORK/qwen2-7b-$1
    mkdir -p "$dir"
    jq --argjson h "$1" '.hidden_size = $h | .num_hidden_layers = 28 | .num_attention_heads = 28 | .num_key_value_heads = 4 |
        .intermediate_size = 18944 | .vocab_size = 152064 | .max_position_embeddings = 131072' "$MODEL/config.json" >"$dir/config.json"
    echo "$dir"
}

F_MODEL_001() {
    local hidden=3584
    [ "$1" = bad ] && hidden=3640
    expect 0 apr oracle "$(seven_b "$hidden")" --json || return 1
    same "$(jq -r '.family.name' <<<"$out")" qwen2 && same "$(jq -r '.size_variant.name' <<<"$out")" 7b
}

F_MODEL_002() {
    local hidden=3584
    [ "$1" = bad ] && hidden=3640
    expect 0 apr oracle "$(seven_b "$hidden")" --family qwen2 --size 7b --validate && ! grep -q MISMATCH <<<"$out"
}

# Planted fault: the model's own family is asked for.
F_MODEL_003() {
    local family=llama size=8b
    [ "$1" = bad ] && family=qwen2 size=7b
    apr oracle "$(seven_b 3584)" --family "$family" --size "$size" --validate >"$GATE_WORK/out" 2>&1
    [ $? -eq 5 ] && grep -q MISMATCH "$GATE_WORK/out"
}

# Planted fault: a tensor is missing.
F_MODEL_004() {
    local m=$MODEL want
    [ "$1" = bad ] && m=$(broken missing)
    want=$(apr oracle "$MODEL" --json | jq '.. | .expected_tensor_count? // empty' | head -n 1)
    same "$(apr tensors "$m" --json | jq .tensor_count)" "$want" && same "$(apr oracle --family qwen2 --size 7b --json | jq '.. | .expected_tensor_count? // empty' | head -n 1)" 339
}

# Planted fault: the inverse ratio is expected.
F_MODEL_005() {
    local want=7
    [ "$1" = bad ] && want=0.14
    expect 0 apr oracle --family qwen2 --size 7b --stats --json || return 1
    jq -e --argjson w "$want" '[.. | .gqa_ratio? // empty] | length > 0 and all(. == $w)' <<<"$out" >/dev/null
}

F_MODEL_006() {
    local want=128
    [ "$1" = bad ] && want=64
    expect 0 apr oracle --family qwen2 --size 7b --stats --json || return 1
    jq -e --argjson w "$want" '[.. | .head_dim? // empty] | length > 0 and all(. == $w)' <<<"$out" >/dev/null
}
