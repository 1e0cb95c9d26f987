# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-LAYOUT: row-major everywhere; a shape may be reversed, data is never transposed.

# A flag for column-major data must be refused. Planted fault: the flag is not set.
F_LAYOUT_001() {
    local f=$GATE_WORK/layout1-$1.apr flags=0c00
    [ "$1" = bad ] && flags=0400
    cp "$(bf16_apr)" "$f"
    tests/tools/apr-flags "$f" "$flags" || return 1
    expect 4 apr run "$f" test && says 'column'
}

# Shape and bytes of a tensor that went through GGUF and back. Planted fault: another tensor's bytes.
F_LAYOUT_002() {
    local back=$GATE_WORK/layout2.apr name=model.layers.0.mlp.down_proj.weight other
    once "$back" apr import "$(bf16_gguf)" -q -o "$back"
    other=$name
    [ "$1" = bad ] && other=model.layers.1.mlp.down_proj.weight
    same "$(shape_of "$back" "$name")" '[256,768]' && same "$(hash_of "$back" "$name")" "$(hash_of "$(bf16_apr)" "$other")"
}

shape_of() { apr tensors "$1" --json | jq -c --arg n "$2" '.tensors[] | select(.name == $n) | .shape'; }
hash_of() { apr inspect "$1" --provenance --json | jq -r --arg n "$2" '.. | .tensors? // empty | .[$n]? // empty' | head -n 1; }

# In the next three a dimension is swapped. Planted fault: a healthy model.
swapped() { # KIND MODE
    local m
    if [ "$2" = good ]; then m=$(broken_apr "$1"); else m=$(bf16_apr); fi
    expect 5 apr run "$m" test && says 'F-LAYOUT-CONTRACT-00[12]'
}
F_LAYOUT_003() { swapped swapped-down "$1" && says 'down_proj'; }
F_LAYOUT_004() { swapped swapped-embed "$1" && says 'embed_tokens'; }
F_LAYOUT_005() { swapped swapped-gate "$1" && says 'gate_proj'; }

# The swap is named as a swap, by comparison and by validation. Planted fault: a healthy model.
F_LAYOUT_006() {
    local m
    if [ "$1" = good ]; then m=$(broken swapped-down); else m=$MODEL; fi
    expect 1 apr rosetta diff-tensors "$(bf16_gguf)" "$m" --json && says 'transposed dimensions detected' &&
        jq -e '[.results[] | select(.status == "transposed") | .name] == ["model.layers.0.mlp.down_proj.weight"]' <<<"$out" &&
        expect 5 apr validate "$m" && grep -Eqi 'swapped|transposed' <<<"$out$err"
}
