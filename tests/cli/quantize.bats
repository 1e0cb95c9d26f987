#!/usr/bin/env bats
# The options that say which type a tensor gets: the same on import, convert, quantize and export.

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export APR_HOME=$BATS_TEST_TMPDIR/home
    MODEL=tests/data/apr-demo-8M-Instruct
    IMATRIX=tests/data/imatrix/demo
    T=$BATS_TEST_TMPDIR
}

types() { jq -r '.tensors[] | "\(.name) \(.type)"'; }

@test "--tensor-type: the first match counts, letters of either case, GGUF names" {
    apr export gguf "$MODEL" --quantize q4_k_m --dry-run --json --tensor-type 'BLK\.[0-3]\..*ffn_up=q8_0' \
        --tensor-type 'ffn_(up|gate)=iq4_xs' -q | types >"$T/types"
    grep -qx 'blk.3.ffn_up.weight Q8_0' "$T/types"
    grep -qx 'blk.4.ffn_up.weight IQ4_XS' "$T/types"
    grep -qx 'blk.0.ffn_gate.weight IQ4_XS' "$T/types"
    grep -qx 'blk.0.attn_q.weight Q4_K' "$T/types"
    grep -qx 'blk.0.attn_norm.weight F32' "$T/types"
}

@test "--output-type, --embedding-type and --leave-output-tensor win over the rest" {
    apr export gguf "$MODEL" --quantize q4_k_m --dry-run --json --output-type q5_k --embedding-type f16 \
        --tensor-type 'output|token=q8_0' -q | types >"$T/types"
    grep -qx 'output.weight Q5_K' "$T/types"
    grep -qx 'token_embd.weight F16' "$T/types"
    grep -qx 'blk.0.attn_output.weight Q8_0' "$T/types"
    apr import "$MODEL" --quantize q4_k_m --dry-run --json --leave-output-tensor -q | types >"$T/types"
    grep -qx 'lm_head.weight BF16' "$T/types"
}

@test "import, convert, quantize and export make the same types of the same options" {
    options=(--tensor-type 'attn_v=q8_0' --embedding-type q5_0 --imatrix "$IMATRIX.gguf" -q)
    apr import "$MODEL" --quantize iq4_xs "${options[@]}" -o "$T/a.apr"
    apr convert "$MODEL" --quantize iq4_xs "${options[@]}" -o "$T/b.apr"
    apr quantize "$MODEL" iq4_xs "${options[@]}" -o "$T/c.apr"
    apr export gguf "$MODEL" --quantize iq4_xs "${options[@]}" -o "$T/d.gguf"
    for f in a b c; do
        apr export gguf "$T/$f.apr" --no-provenance -q -o "$T/$f.gguf"
    done
    apr export gguf "$MODEL" --quantize iq4_xs "${options[@]}" --no-provenance -q -o "$T/e.gguf"
    cmp "$T/a.gguf" "$T/b.gguf"
    cmp "$T/a.gguf" "$T/c.gguf"
    cmp "$T/a.gguf" "$T/e.gguf"
    apr run "$T/d.gguf" "What is the capital of France?" -n 16 | grep -q Paris
}

@test "--imatrix: from a file and from a pipe, the same bytes; what was used is recorded" {
    apr export gguf "$MODEL" --quantize q4_k_m --no-provenance -q -o "$T/plain.gguf"
    apr export gguf "$MODEL" --quantize q4_k_m --no-provenance --imatrix "$IMATRIX.gguf" -q -j1 -o "$T/a.gguf"

    apr export gguf "$MODEL" --quantize q4_k_m --no-provenance --imatrix - -q -j2 <"$IMATRIX.gguf" -o "$T/b.gguf"
    if cmp -s "$T/plain.gguf" "$T/a.gguf"; then false; fi
    [ "$(apr tensors "$T/a.gguf" --json | jq -c '[.tensors[] | [.name, .dtype]]')" = \
        "$(apr tensors "$T/plain.gguf" --json | jq -c '[.tensors[] | [.name, .dtype]]')" ]
    n=$(stat -c %s "$T/a.gguf")
    cmp <(tail -c 5000000 "$T/a.gguf") <(tail -c 5000000 "$T/b.gguf")
    [ "$n" -gt 5000000 ]
    apr inspect "$T/a.gguf" --json >"$T/a.json"
    grep -q '"quantize.imatrix.file": *"demo.gguf"' "$T/a.json"
    grep -q '"quantize.imatrix.entries_count": *"*56' "$T/a.json"
    grep -q '"quantize.imatrix.chunks_count": *"*24' "$T/a.json"
    apr import "$MODEL" --quantize q4_k_m --imatrix "$IMATRIX.gguf" -q -o "$T/a.apr"
    apr export gguf "$T/a.apr" --no-provenance -q -o "$T/c.gguf"
    cmp "$T/a.gguf" "$T/c.gguf"
}

@test "--imatrix says which tensors have no data" {
    run apr export gguf "$MODEL" --quantize q4_k_m --imatrix "$IMATRIX.gguf" -o "$T/a.gguf"
    [ "$status" -eq 0 ]
    [[ "$output" == *"output.weight: no importance data; quantized without"* ]]
    [[ "$output" != *"blk."*"no importance data"* ]]
}

@test "what cannot be done is refused with one line before any output" {
    try() { # status, text, options ...
        local want=$1 text=$2
        shift 2
        run apr export gguf "$MODEL" -o "$T/x.gguf" "$@"
        echo "$status $output"
        [ "$status" -eq "$want" ] && [ "${#lines[@]}" -eq 1 ] && [[ "$output" == *"$text"* ]] && [ ! -e "$T/x.gguf" ]
    }
    try 2 'expected REGEX=TYPE' --quantize q4k --tensor-type attn_v
    try 2 'missing closing parenthesis' --quantize q4k --tensor-type '(a=q4_k'
    try 2 'unknown type "q9"' --quantize q4k --tensor-type 'a=q9'
    try 2 'can be read, not written' --quantize q4k --tensor-type 'a=iq2_xxs'
    try 2 'unknown type "q9"' --quantize q4k --output-type q9
    try 2 'needs --quantize' --tensor-type 'a=q4_k'
    try 2 'needs --quantize' --embedding-type q8_0
    try 2 'needs --quantize' --imatrix "$IMATRIX.gguf"
    try 2 'has no effect' --quantize f16 --imatrix "$IMATRIX.gguf"
    try 2 'has no effect' --quantize f16 --tensor-type 'a=q4_k'
    try 2 'contradict' --quantize q4k --leave-output-tensor --output-type q8_0
    try 3 'missing.gguf' --quantize q4k --imatrix "$T/missing.gguf"
    try 4 'number of entries' --quantize q4k --imatrix "$MODEL/config.json"
    head -c 9000 "$IMATRIX.gguf" >"$T/cut.gguf"
    try 4 'cut.gguf' --quantize q4k --imatrix "$T/cut.gguf"
    apr export gguf "$MODEL" -q -o "$T/model.gguf"
    try 4 'not an importance matrix' --quantize q4k --imatrix "$T/model.gguf"
}
