#!/usr/bin/env bats
# Quantized models predict as well as llama.cpp's of the same recipe: perplexity of the demonstration model on the
# plain text, reference mode, at most 0.5 % above what a file of llama-quantize has in the same mode.
# tests/data/quant/peer-perplexity.txt: recipe, llama.cpp's. The five where ours is nearest to the bound run here.

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export APR_HOME=$BATS_TEST_TMPDIR/home
    MODEL=tests/data/apr-demo-8M-Instruct
    TEXT=tests/data/apr-demo-golden/eval-plain.txt
    T=$BATS_TEST_TMPDIR
}

check() { # recipe
    peer=$(awk -v r="$1" '$1 == r { print $2 }' tests/data/quant/peer-perplexity.txt)
    apr export gguf "$MODEL" --quantize "$1" -q -o "$T/$1.gguf"
    ours=$(apr eval "$T/$1.gguf" --file "$TEXT" --exact --json -q | jq .ppl_all)
    echo "$1: ours $ours, llama.cpp $peer"
    awk -v a="$ours" -v b="$peer" 'BEGIN { exit !(a > 1 && b > 1 && a <= b * 1.005) }'
}

@test "q4_k_m and q4_k_s" {
    check q4_k_m
    check q4_k_s
}

@test "q5_k_m and q5_k_s" {
    check q5_k_m
    check q5_k_s
}

@test "q6_k" {
    check q6_k
}
