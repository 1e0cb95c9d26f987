#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# check: ten measured stages, and each kind of damage found.

load infer

setup() { infer_setup; }

@test "ten stages pass on the demonstration model in three formats" {
    make_model q4k gguf
    for m in "$MODEL" "$T/m.apr" "$T/m.gguf"; do
        run --separate-stderr apr check "$m" --json
        echo "$output"
        [ "$status" -eq 0 ]
        [ "$(jq -c '[.passed, .n_passed, (.stages | length), ([.stages[].result] | unique)]' <<<"$output")" = '[true,10,10,["pass"]]' ]
        [ "$(jq '[.stages[].measured | length > 10] | all' <<<"$output")" = true ]
    done
    run apr check "$MODEL" --no-gpu
    [ "$status" -eq 0 ]
    [[ $output == *"positional_encoding"*"n_passed: 10"* ]]
}

# The model with the BF16 values of one tensor replaced by a 16-bit word: NAME HEXWORD -> $T/bad
damage() {
    local shard header off len
    cp -r "$MODEL" "$T/bad" && chmod -R u+w "$T/bad"
    shard=$T/bad/$(jq -r --arg n "$1" '.weight_map[$n]' "$MODEL/model.safetensors.index.json")
    header=$(od -An -t u8 -N8 "$shard" | tr -d ' ')
    read -r off len < <(dd if="$shard" bs=1 skip=8 count="$header" status=none | jq -r --arg n "$1" '.[$n].data_offsets | "\(.[0]) \(.[1] - .[0])"')
    yes "$2" | head -n $((len / 2)) | xxd -r -p | dd of="$shard" bs=65536 oflag=seek_bytes seek=$((8 + header + off)) conv=notrunc status=none
}

@test "NaN weights: the contract refuses with 5; without it the stages do" {
    damage model.layers.3.mlp.down_proj.weight c07f
    run --separate-stderr apr check "$T/bad"
    [ "$status" -eq 5 ]
    run --separate-stderr apr check "$T/bad" --skip-contract --json
    echo "$output"
    [ "$status" -eq 5 ]
    [ "$(jq -c '[.passed, .stages[8].name, .stages[8].result]' <<<"$output")" = '[false,"logits","FAIL"]' ]
}

@test "a zeroed value projection fails the stage that it belongs to" {
    damage model.layers.0.self_attn.v_proj.weight 0000
    run --separate-stderr apr check "$T/bad" --skip-contract --json
    echo "$output"
    [ "$status" -eq 5 ]
    [ "$(jq -r '.stages[3] | .name + " " + .result' <<<"$output")" = "qkv_projection FAIL" ]
}

@test "an absent model" {
    run --separate-stderr apr check "$T/absent"
    [ "$status" -eq 3 ]
}
