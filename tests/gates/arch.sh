# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-ARCH: the structure of the system.

# Planted fault: apr-infer itself, which does hold the engine, is among the tools that must not.
F_ARCH_001() {
    local tools="apr-import apr-export apr-hex apr-qa apr-pull" t n=0
    [ "$1" = bad ] && tools="$tools apr-infer"
    for t in $tools; do
        t=$(command -v "$t") || return 1
        n=$((n + 1))
        if nm -C "$t" | grep -Eq ' [Tt] apr_(forward|session)_'; then
            echo "$t holds the engine"
            return 1
        fi
    done
    [ "$n" -ge 5 ]
}

# apr run must work with apr-infer beside it and not without. Planted fault: apr-infer is left in place.
F_ARCH_002() {
    local dir=$GATE_WORK/arch2-$1 tool
    mkdir -p "$dir"
    for tool in apr verbs apr-import apr-export apr-hex apr-qa; do
        cp "$(dirname "$(command -v apr)")/$tool" "$dir/" || return 1
    done
    [ "$1" = bad ] && cp "$(command -v apr-infer)" "$dir/"
    expect 0 apr run "$MODEL" "$QUESTION" && same "$out" 4 || return 1
    if "$dir/apr" run "$MODEL" "$QUESTION" >/dev/null 2>&1; then
        echo "apr run works without apr-infer"
        return 1
    fi
}

# Planted fault: a healthy model in the corrupt one's place.
F_ARCH_003() {
    local m
    if [ "$1" = good ]; then m=$(broken_apr nan); else m=$(bf16_apr); fi
    expect 5 apr run "$m" test && says 'F-DATA-QUALITY-002'
}

# Planted fault: the flag is left out.
F_ARCH_004() {
    local flag=--skip-contract
    [ "$1" = bad ] && flag=--quiet
    apr run "$flag" "$(broken_apr nan)" test >/dev/null 2>"$GATE_WORK/stderr"
    local got=$?
    err=$(cat "$GATE_WORK/stderr")
    [ "$got" -ne 5 ] && ! grep -q 'F-DATA-QUALITY' <<<"$err"
}

# Planted fault: a gated verb among the exempt ones.
F_ARCH_005() {
    local v verbs="inspect tensors"
    [ "$1" = bad ] && verbs="$verbs run"
    for v in $verbs; do expect 0 apr "$v" "$(broken_apr nan)" || return 1; done
}

# Files are renamed so that no suffix helps. Planted fault: bytes of no format.
F_ARCH_006() {
    local dir=$GATE_WORK/arch6-$1 pair
    mkdir -p "$dir"
    cp "$(bf16_apr)" "$dir/a" && cp "$(bf16_gguf)" "$dir/b" && cp "$MODEL/model-00001-of-00004.safetensors" "$dir/c" || return 1
    [ "$1" = bad ] && head -c 4096 /dev/zero >"$dir/b"
    for pair in a:apr b:gguf c:safetensors; do
        expect 0 apr inspect "$dir/${pair%%:*}" --json || return 1
        same "$(jq -r '.format | ascii_downcase | split(" ")[0]' <<<"$out")" "${pair##*:}" || return 1
    done
}

# The column-major flag (0x0800) in an .apr header, with a right checksum. Planted fault: the flag is not set.
F_ARCH_007() {
    local f=$GATE_WORK/arch7-$1.apr flags=0c00
    [ "$1" = bad ] && flags=0400
    cp "$(bf16_apr)" "$f"
    tests/tools/apr-flags "$f" "$flags" || return 1
    expect 4 apr inspect "$f" && says 'column'
}
