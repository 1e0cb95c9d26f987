#!/usr/bin/env bats
# Who chooses the tokens when a device computes: the device where it can do what the sampler does, with the same
# numbers, else the host. The device is made up (tests/tools/fake-gpu.c): 16 likely tokens at every place.

# shellcheck disable=SC2154 # stderr is set by run

bats_require_minimum_version 1.5.0

setup_file() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    local bin=$BATS_FILE_TMPDIR/bin
    mkdir "$bin"
    cp "$(command -v apr-infer)" "$bin/"
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror -D_GNU_SOURCE -Ilib -shared -fPIC -o "$bin/apr-cuda.so" tests/tools/fake-gpu.c -lm
}

setup() {
    infer=$BATS_FILE_TMPDIR/bin/apr-infer
    M=tests/data/apr-demo-8M-Instruct
}

# OPTION...: the tokens, and how many runs of tokens the device drew or chose greedily
text() {
    local calls=$BATS_TEST_TMPDIR/calls
    rm -f "$calls"
    run --separate-stderr env "FAKE_GPU_CALLS=$calls" timeout 60 "$infer" run "$M" --raw 'one two three' -n 40 --ignore-eos --device cuda --json "$@"
    [ "$status" -eq 0 ] || { echo "$*: $status: $stderr" && return 1; }
    tokens=$(jq -c .tokens <<<"$output")
    n_drawn=$(grep -c '^sample' "$calls" || true)
    n_greedy=$(grep -c '^greedy' "$calls" || true)
}

@test "a chain that begins with top_k, or a temperature alone, is the device's, and the text is the host's" {
    for options in '--temperature 1.5 --top-k 12' '--temperature 0.8 --top-k 16 --top-p 0.95 --min-p 0.05' '--temperature 3 --top-k 9 --seed 7' \
        '--temperature 2 --top-k 16 --min-p 0.1 --samplers min_p;temperature;top_k' '--temperature 2 --top-k 16 --samplers temperature;top_k' \
        '--temperature 1.3' '--temperature 4 --seed 11' '--temperature 1 --top-k 1' '--temperature 1 --top-k 16 --top-p 0.7 --seed 99'; do
        case $options in *'min_p;temperature;top_k') on=0 ;; *) on=1 ;; esac
        # shellcheck disable=SC2086 # words
        text $options
        echo "$options: $tokens: $n_drawn"
        [ "$((n_drawn > 0))" -eq $on ]
        [ "$n_greedy" -eq 0 ]
        drawn=$tokens
        # shellcheck disable=SC2086
        text $options --logit-bias 5+0 # which only the host has
        [ "$n_drawn" -eq 0 ]
        [ "$tokens" = "$drawn" ]
    done
    text --temperature 3 --top-k 9 --seed 8
    other=$tokens
    text --temperature 3 --top-k 9 --seed 7
    [ "$tokens" != "$other" ]
}

@test "what looks at the text, at all logits, or at more than the chain stays on the host" {
    for options in '--temperature 1 --min-p 0.1' '--temperature 1 --top-p 0.9' '--temperature 1 --top-k 513' '--temperature 1 --top-k 12 --top-n-sigma 1' \
        '--temperature 1 --top-k 12 --repeat-penalty 1.1' '--temperature 1 --top-k 12 --dry-multiplier 1' '--temperature 1 --mirostat 2' \
        '--temperature 1 --top-k 12 --logit-bias 7-1' '--temperature 1 --top-k 12 --cfg-scale 1.5' \
        '--temperature 1 --top-k 12 --typical-p 0.9 --xtc-probability 0.5 --samplers top_k;typical;xtc;temperature'; do
        # shellcheck disable=SC2086
        text $options
        echo "$options: $n_drawn $n_greedy"
        [ "$n_drawn" -eq 0 ]
        [ "$n_greedy" -eq 0 ]
    done
    text --temperature 0
    [ "$n_greedy" -gt 0 ]
}

@test "the numbers go on where the text does when the device fails in between" {
    text --temperature 2 --top-k 16
    whole=$tokens
    for i in 2 3 4; do
        APR_GPU_FAULT=trap@$i text --temperature 2 --top-k 16
        echo "$i: $stderr"
        [[ "$stderr" == *'opened again'* ]]
        [ "$tokens" = "$whole" ]
    done
}

@test "a text that ends in the middle of what the device has chosen leaves the numbers of the rest to the next" {
    text --temperature 2 --top-k 16 -n 13
    [ "$(jq length <<<"$tokens")" -eq 13 ]
    start=${tokens%]}
    text --temperature 2 --top-k 16
    [[ "$tokens" == "$start,"* ]]
}

@test "requests side by side: each has its own chain and numbers, whoever chooses" {
    for i in 1 2 3 4 5 6; do
        echo "{\"id\": $i, \"prompt\": \"question $i\", \"max_tokens\": 21, \"temperature\": $((i % 3)).5, \"top_k\": $((i % 2 * 12)), \"seed\": $i, \"ignore_eos\": true}"
    done | sed '1s/"temperature": 1.5/"temperature": 0/' >"$BATS_TEST_TMPDIR/requests"
    answers() {
        FAKE_GPU_CALLS=$BATS_TEST_TMPDIR/calls-$1 timeout 60 "$infer" batch "$M" -i "$BATS_TEST_TMPDIR/requests" --device cuda -q "${@:2}" |
            jq -c '[.id, .text, .error]' | sort
    }
    together=$(answers together -P 6)
    alone=$(answers alone -P 1)
    stepped=$(FAKE_GPU_NO_ROWS=1 answers stepped -P 6)
    echo "$together"
    [ "$(wc -l <<<"$together")" -eq 6 ]
    [ "$(cut -d, -f2 <<<"$together" | sort -u | wc -l)" -eq 6 ]
    [[ "$together" != *'error'* ]]
    [ "$together" = "$alone" ]
    [ "$together" = "$stepped" ]
    grep -q '^sample of [0-9]*, 6 rows' "$BATS_TEST_TMPDIR/calls-together"
    run ! grep -q '^sample\|^greedy' "$BATS_TEST_TMPDIR/calls-stepped"
}
