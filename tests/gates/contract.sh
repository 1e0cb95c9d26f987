# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-CONTRACT: the gate before dispatch. Planted faults are healthy models unless said.

pick() { # MODE KIND
    if [ "$1" = good ]; then broken_apr "$2"; else bf16_apr; fi
}

F_CONTRACT_001() { expect 5 apr run "$(pick "$1" nan)" test && says 'F-DATA-QUALITY-00[0-9]' && says 'violation'; }

# Planted fault: the flag is left out.
F_CONTRACT_002() {
    local flag=--skip-contract
    [ "$1" = bad ] && flag=--quiet
    expect 0 apr run "$flag" "$(broken_apr sparse-embed)" test -n 2
}

# Planted fault: a gated verb.
F_CONTRACT_003() {
    local verb=inspect
    [ "$1" = bad ] && verb=run
    expect 0 apr "$verb" "$(broken_apr nan)"
}
F_CONTRACT_004() { expect 5 apr run "$(pick "$1" sparse-embed)" test && says 'F-DATA-QUALITY-001'; }
F_CONTRACT_005() { expect 5 apr run "$(pick "$1" nan)" test && says 'F-DATA-QUALITY-002'; }

# Planted fault: the column-major flag is not set.
F_CONTRACT_006() {
    local f=$GATE_WORK/contract6-$1.apr flags=0c00
    [ "$1" = bad ] && flags=0400
    cp "$(bf16_apr)" "$f"
    tests/tools/apr-flags "$f" "$flags" || return 1
    expect 4 apr validate "$f"
}
F_CONTRACT_007() { expect 5 apr run "$(pick "$1" swapped-head)" test && says 'F-LAYOUT-CONTRACT-002' && says 'critical'; }

# Planted fault: a key that no tokenizer has is asked for too.
F_CONTRACT_008() {
    local key keys="ggml.token_type ggml.eos_token_id ggml.bos_token_id ggml.tokens ggml.merges chat_template"
    [ "$1" = bad ] && keys="$keys ggml.no_such_key"
    for key in $keys; do
        grep -aq "tokenizer.$key" "$(bf16_gguf)" || {
            echo "tokenizer.$key is missing"
            return 1
        }
    done
}

# Planted fault: the tokenizer is left in place.
F_CONTRACT_009() {
    local m=$GATE_WORK/contract9-$1
    cp -r "$MODEL" "$m"
    [ "$1" = good ] && rm -f "$m/tokenizer.json" "$m/vocab.json" "$m/merges.txt"
    expect 5 apr export "$m" --format gguf -o "$m.gguf" && says 'tokenizer' && [ ! -e "$m.gguf" ]
}
