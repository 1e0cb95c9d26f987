#!/usr/bin/env bats
# apr imatrix: the importance matrix that llama.cpp measures (tests/data/imatrix/demo.gguf, made from the same text).

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export APR_HOME=$BATS_TEST_TMPDIR/home
    MODEL=tests/data/apr-demo-8M-Instruct
    TEXT=tests/data/apr-demo-golden/eval-plain.txt
    T=$BATS_TEST_TMPDIR
}

floats() { od -An -v -w4 -tf4 -j "$2" "$1"; }

@test "header and counts are llama.cpp's, sums within 1 %" {
    apr imatrix "$MODEL" -f "$TEXT" -o "$T/a.gguf" -q
    peer=tests/data/imatrix/demo.gguf
    head=$(($(apr inspect "$peer" --json | jq .data_offset)))
    [ "$head" -gt 4096 ]
    cmp -n "$head" "$T/a.gguf" "$peer"
    [ "$(stat -c %s "$T/a.gguf")" = "$(stat -c %s "$peer")" ]
    paste <(floats "$T/a.gguf" "$head") <(floats "$peer" "$head") | awk '
        { off = $1 - $2; if (off < 0) off = -off; if (off > 0.01 * $2) { bad++; print NR, $0 } }
        END { print NR, bad + 0; exit NR < 15000 || bad > 0 }'
}

@test "the same bytes for any thread count and chunk, from a file and from a pipe" {
    apr imatrix "$MODEL" -f "$TEXT" -n 1100 -q -t 1 --exact -o "$T/a.gguf"
    apr imatrix "$MODEL" -f "$TEXT" -n 1100 -q -t 2 --exact -b 100 >"$T/b.gguf"
    cmp "$T/a.gguf" "$T/b.gguf"
    apr imatrix "$MODEL" -f - -n 1100 -q -t 2 --exact -o "$T/c.gguf" <"$TEXT"
    cmp <(tail -c 70000 "$T/a.gguf") <(tail -c 70000 "$T/c.gguf")
}

@test "what it writes is read; --process-output adds the head" {
    apr imatrix "$MODEL" -f "$TEXT" -n 600 --process-output --json -o "$T/a.gguf" -q >"$T/json"
    [ "$(jq -c '[.n_entries, .n_windows, .n_toks]' "$T/json")" = '[57,1,512]' ]
    run apr export gguf "$MODEL" --quantize iq4_nl --imatrix "$T/a.gguf" -o "$T/m.gguf"
    [ "$status" -eq 0 ]
    [[ "$output" != *"output.weight: no importance data"* ]]
    apr run "$T/m.gguf" "What is the capital of France?" -n 16 | grep -q Paris
}

@test "refusals: one line, the right status, no output" {
    try() { # status, text, arguments ...
        local want=$1 text=$2
        shift 2
        run apr imatrix "$@"
        echo "$status $output"
        [ "$status" -eq "$want" ] && [ "${#lines[@]}" -eq 1 ] && [[ "$output" == *"$text"* ]]
        [ ! -e "$T/x.gguf" ]
    }
    printf 'Too short.' >"$T/short"
    try 2 'no text' "$MODEL" -o "$T/x.gguf"
    try 2 'do not fill one window' "$MODEL" -f "$T/short" -o "$T/x.gguf"
    try 2 '--window' "$MODEL" -f "$TEXT" -w 3 -o "$T/x.gguf"
    try 2 '--json needs -o' "$MODEL" -f "$TEXT" --json
    try 3 'missing' "$T/missing" -f "$TEXT" -o "$T/x.gguf"
    try 3 'missing' "$MODEL" -f "$T/missing" -o "$T/x.gguf"
    touch "$T/there"
    try 7 'there' "$MODEL" -f "$TEXT" -n 512 -q -o "$T/there"
    run apr imatrix "$MODEL" -f "$TEXT" -n 512 -q -o /dev/full
    [ "$status" -eq 7 ]
}
