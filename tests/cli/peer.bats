#!/usr/bin/env bats
# llama.cpp reads what we write and predicts as we do. APR_PEER_BIN names a folder with its programs; without it the tests skip.

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export APR_HOME=$BATS_TEST_TMPDIR/home
    MODEL=tests/data/apr-demo-8M-Instruct
    T=$BATS_TEST_TMPDIR
    [ -n "${APR_PEER_BIN:-}" ] || skip 'APR_PEER_BIN names no folder with llama.cpp programs'
    [ -x "$APR_PEER_BIN/llama-completion" ] || skip "no llama-completion in $APR_PEER_BIN"
    export LD_LIBRARY_PATH=$APR_PEER_BIN
}

# The chat format is written out, so that both programs see the same tokens.
ask() { # QUESTION: the raw prompt
    printf '<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n' "$1"
}

# The peer now and then loses the end of its output when it is no terminal (status 0); only an output with its end mark
# counts, and it is asked again for one.
theirs() { # GGUF: greedy continuation of $T/prompt
    local text attempt
    for attempt in {1..12}; do
        text=$(timeout 60 "$APR_PEER_BIN/llama-completion" -m "$1" -f "$T/prompt" -n 24 -t 1 --temp 0 -no-cnv --no-display-prompt 2>/dev/null |
            tr -d '\n')
        case $text in *' [end of text]'*) break ;; esac
        text="no end mark in $attempt attempts"
    done
    printf '%s' "${text%% \[end of text\]*}"
}

@test "exported GGUFs load in llama.cpp and answer as here" {
    local type question ours peers
    for type in bf16 q8_0 q4_k_m; do
        apr import "$MODEL" --quantize "$type" -q -o "$T/$type.apr"
        apr export "$T/$type.apr" --format gguf -q -o "$T/$type.gguf"
        for question in 'What is 2+2? Answer with just the number.' 'What is the capital of France?' 'What is 7+5? Answer with just the number.'; do
            ask "$question" >"$T/prompt"
            ours=$(apr run "$T/$type.gguf" --raw -i "$T/prompt" -n 24 2>/dev/null | tr -d '\n')
            peers=$(theirs "$T/$type.gguf")
            echo "$type: '$question': ours '$ours', peer '$peers'"
            [ -n "$ours" ]
            [ "$peers" = "$ours" ]
        done
    done
}

@test "the comparison with the peer can fail" {
    tests/tools/break-model scrambled-head "$MODEL" "$T/broken"
    apr export "$T/broken" --format gguf -q -o "$T/broken.gguf"
    ask 'What is 2+2? Answer with just the number.' >"$T/prompt"
    [ "$(theirs "$T/broken.gguf")" != 4 ]
}

# The peer's own files; windows of 512 tokens, of which the second half counts, in both programs. Activations are rounded
# to 8 bits in both, and a model of 256 columns feels it: a change in the last bit of a key moves the perplexity by up to
# 1 %. So ours is the mean over four roundings of the cache.
ours_mean() { # GGUF TEXT
    local k v
    for k in f16 f32; do
        for v in f16 f32; do
            apr eval "$1" --file "$2" --window 512 --cache-type-k "$k" --cache-type-v "$v" --device cpu --json -q | jq .ppl_second_half
        done
    done | awk '{ sum += $1 } END { if (NR == 4) printf "%.6f", sum / 4 }'
}

@test "perplexity of every type is llama-perplexity's to 0.3 %" {
    local gguf=${APR_SHARED:-../shared}/fixtures/gguf text=${APR_SHARED:-../shared}/fixtures/models/apr-demo-golden/eval-plain.txt
    local file peers n=0 n_far=0
    [ -d "$gguf" ] || skip "the fixtures are not here: $gguf"
    [ -x "$APR_PEER_BIN/llama-perplexity" ] || skip "no llama-perplexity in $APR_PEER_BIN"
    for file in "$gguf"/demo-*.gguf; do
        peers=$(timeout 300 "$APR_PEER_BIN/llama-perplexity" -m "$file" -f "$text" -c 512 -t 1 2>&1 | sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p')
        awk -v name="${file##*/}" -v a="$(ours_mean "$file" "$text")" -v b="$peers" 'BEGIN { d = b > 1 ? 100 * (a / b - 1) : 100
            printf "%-20s ours %.4f peer %.4f %+.3f %%\n", name, a, b, d; exit !(a > 1 && d < 0.3 && d > -0.3) }' || n_far=$((n_far + 1))
        n=$((n + 1))
    done
    [ "$n" -ge 8 ] && [ "$n_far" -eq 0 ]
}
