# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-ROSETTA: conversions.

# Planted fault: a shard less in the source that is counted.
F_ROSETTA_001() {
    local n_from
    n_from=$(jq '.weight_map | length' "$MODEL/model.safetensors.index.json")
    [ "$1" = bad ] && n_from=$((n_from - 1))
    same "$(apr tensors "$(bf16_apr)" --json | jq .tensor_count)" "$n_from"
}

# Planted fault: the GGUF of a model whose head was scrambled.
answers() { # GGUF
    expect 0 apr run "$1" "$QUESTION" && same "$out" 4
}
F_ROSETTA_002() {
    local m
    if [ "$1" = good ]; then
        m=$(q4k_gguf)
    else
        m=$GATE_WORK/rosetta2.gguf
        once "$m" apr export "$(broken scrambled-head)" --quantize q4k --format gguf -q -o "$m"
    fi
    answers "$m"
}
F_ROSETTA_003() {
    local m=$GATE_WORK/rosetta3-$1.gguf from=$MODEL
    [ "$1" = bad ] && from=$(broken scrambled-head)
    expect 0 apr rosetta chain "st -> apr -> gguf" --input "$from" --quantize q4k --work-dir "$GATE_WORK/chain-$1" -o "$m" && answers "$m"
}

# Planted fault: a healthy model.
F_ROSETTA_005() {
    local m=$MODEL
    [ "$1" = good ] && m=$(broken nan)
    expect 5 apr import "$m" -o "$GATE_WORK/rosetta5-$1.apr" && says 'NaN' && [ ! -e "$GATE_WORK/rosetta5-$1.apr" ]
}
F_ROSETTA_006() {
    local m=$MODEL
    [ "$1" = good ] && m=$(broken vocab)
    expect 5 apr import "$m" -o "$GATE_WORK/rosetta6-$1.apr" && says 'vocab' && [ ! -e "$GATE_WORK/rosetta6-$1.apr" ]
}
