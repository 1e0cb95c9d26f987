# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-FMT: formats are told by content, also on standard input.

detect() { # FILE FORMAT
    local got
    got=$(apr inspect - --json <"$1" 2>/dev/null | jq -r '.format | ascii_downcase | split(" ")[0]') || return 1
    same "$got" "$2"
}

# Planted fault in the first three: the first byte is another.
spoil() { # FILE NAME MODE: a copy, spoiled when MODE is bad
    cp "$1" "$GATE_WORK/$2" && chmod u+w "$GATE_WORK/$2"
    [ "$3" = good ] || printf '\377' | dd of="$GATE_WORK/$2" bs=1 seek="${4:-0}" conv=notrunc 2>/dev/null
    echo "$GATE_WORK/$2"
}

F_FMT_001() { detect "$(spoil "$(bf16_gguf)" "fmt1-$1" "$1")" gguf; }
F_FMT_002() { detect "$(spoil "$MODEL/model-00001-of-00004.safetensors" "fmt2-$1" "$1" 7)" safetensors; }
F_FMT_003() { detect "$(spoil "$(bf16_apr)" "fmt3-$1" "$1")" apr; }

# Planted fault: a model.
F_FMT_004() {
    local m=$GATE_WORK/random.bin
    if [ "$1" = good ]; then seq 1 5000 >"$m"; else m=$(bf16_apr); fi
    expect 4 apr run "$m" test && says 'unknown format'
}
