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

# A flipped sign changes checksum and hash of its tensor and of no other. Planted fault: no byte is flipped.
F_ROSETTA_004() {
    local m=$GATE_WORK/rosetta4-$1.apr at name=model.layers.3.mlp.up_proj.weight
    cp "$(q4k_apr)" "$m" && chmod u+w "$m"
    at=$(apr inspect "$m" --weights --json | jq --arg n "$name" '.weights[] | select(.name == $n) | .offset + 1') && [ -n "$at" ] || return 1
    [ "$1" = bad ] || flip_sign "$m" "$at"
    apr rosetta fingerprint "$(q4k_apr)" --json | jq -c '.fingerprints[] | [.name, .checksum, .data_xxh3]' >"$GATE_WORK/prints"
    apr rosetta fingerprint "$m" --json | jq -c '.fingerprints[] | [.name, .checksum, .data_xxh3]' >"$GATE_WORK/prints.flipped"
    same "$(wc -l <"$GATE_WORK/prints")" 99 || return 1
    diff "$GATE_WORK/prints" "$GATE_WORK/prints.flipped" >"$GATE_WORK/diff"
    same "$(grep -c '^[<>]' "$GATE_WORK/diff")" 2 && same "$(grep -c "$name" "$GATE_WORK/diff")" 2 &&
        differs "$(sed -n 's/^< .*",\([0-9]*\),.*/\1/p' "$GATE_WORK/diff")" "$(sed -n 's/^> .*",\([0-9]*\),.*/\1/p' "$GATE_WORK/diff")"
}
flip_sign() { # FILE OFFSET: the top bit of a byte
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\x$(printf %x $((byte ^ 128)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
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
